"""The one-shot route as a stage: its results are kept as state dicts in the work directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from edgefolio.durable_files import write_durably
from edgefolio.specification import OneShot
from edgefolio_pruner.making.source import MakingSource
from edgefolio_pruner.making.trained import TrainedState
from edgefolio_pruner.making.work import WorkDirectory
from edgefolio_pruner.oneshot import prune_ladder
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.training import state_digest


def one_shot_states(
    source: MakingSource,
    dense: TrainedState,
    specification: OneShot,
    *,
    calibration_samples: int,
    work: WorkDirectory,
    threads: int,
    progress: Progress,
) -> tuple[TrainedState, ...]:
    """One candidate per entry of ``macsPercent``, from the dense model."""
    key: dict[str, Any] = {
        **source.record,
        "dense": dense.state_digest,
        "macsPercent": list(specification.macs_percent),
        "calibrationSamples": calibration_samples,
        "threads": threads,
        "torch": torch.__version__,
    }
    folder = work.folder("one-shot", key)

    def prune() -> list[dict[str, Any]]:
        results = prune_ladder(
            module=source.build_with(dense.state()),
            calibration=torch.from_numpy(source.data.calibration(calibration_samples, seed=source.seed)),
            macs_percents=specification.macs_percent,
            seed=source.seed,
            threads=threads,
            progress=progress,
        )
        records = []
        for result in results:
            path = _path(folder, result.macs_percent)
            write_durably(path, safetensors.torch.save(result.state), field="--work-dir")
            records.append(
                {
                    "macsPercent": result.macs_percent,
                    "digest": state_digest(result.state),
                    "macsPercentReached": round(result.macs_percent_reached, 2),
                    "calibrationSamples": result.samples,
                    "seconds": round(result.seconds, 1),
                    "notes": list(result.notes),
                }
            )
        return records

    def usable(records: list[dict[str, Any]]) -> bool:
        return all(_holds(_path(folder, record["macsPercent"]), record["digest"]) for record in records)

    records = work.result("one-shot", key, prune, usable=usable)
    return tuple(
        TrainedState(
            name=f"oneshot-{record['macsPercent']}",
            parent=dense.name,
            method="one-shot pruning with refit",
            state_path=_path(folder, record["macsPercent"]),
            state_digest=record["digest"],
            settings={name: value for name, value in record.items() if name not in ("digest", "seconds")},
            seconds=record["seconds"],
        )
        for record in records
    )


def _path(folder: Path, macs_percent: int) -> Path:
    return folder / f"oneshot-{macs_percent}.safetensors"


def _holds(path: Path, digest: str) -> bool:
    try:
        return state_digest(safetensors.torch.load_file(path)) == digest
    except (OSError, safetensors.SafetensorError):
        return False
