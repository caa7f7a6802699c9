"""The one-shot route as a stage: each variant is kept as a state dict of its own in the work directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from edgefolio.contract.work_pieces import one_shot_piece
from edgefolio.files import write_durably
from edgefolio.specification import OneShot
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.methods.sparse_training import TrainedState
from edgefolio_pruner.oneshot import OneShotResult, prune_ladder
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.training import state_digest
from edgefolio_pruner.work.directory import WorkDirectory


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
    """One candidate per entry of ``macsPercent``, from the dense model.

    What is missing is made together, which saves what they have in common and changes no bit: each is the same as if it
    were made alone, in a run or a pod of its own.
    """
    shelves = {
        percent: _Shelf(
            work,
            percent,
            {
                **source.record,
                "dense": dense.state_digest,
                "macsPercent": percent,
                "calibrationSamples": calibration_samples,
                "threads": threads,
                "torch": torch.__version__,
            },
        )
        for percent in specification.macs_percent
    }
    records = {percent: shelf.kept() for percent, shelf in shelves.items()}
    missing = [percent for percent, record in records.items() if record is None]
    if missing:
        results = prune_ladder(
            module=source.build_with(dense.state()),
            calibration=torch.from_numpy(source.data.calibration(calibration_samples, seed=source.seed)),
            macs_percents=missing,
            seed=source.seed,
            threads=threads,
            progress=progress,
        )
        records |= {result.macs_percent: shelves[result.macs_percent].keep(result) for result in results}
    return tuple(shelves[percent].state(record, dense) for percent, record in records.items() if record is not None)


class _Shelf:
    """Where one variant of the route is kept."""

    def __init__(self, work: WorkDirectory, macs_percent: int, key: Mapping[str, Any]) -> None:
        self._work, self._key = work, key
        self._stage = f"one-shot-{macs_percent}"
        self._name = one_shot_piece(macs_percent)
        self._path = work.folder(self._stage, key) / f"{self._name}.safetensors"

    def kept(self) -> dict[str, Any] | None:
        record: dict[str, Any] | None = self._work.kept(
            self._stage, self._key, usable=lambda value: _holds(self._path, value["digest"])
        )
        return record

    def keep(self, result: OneShotResult) -> dict[str, Any]:
        write_durably(self._path, safetensors.torch.save(result.state), field="--work-dir")
        record = {
            "macsPercent": result.macs_percent,
            "digest": state_digest(result.state),
            "macsPercentReached": round(result.macs_percent_reached, 2),
            "calibrationSamples": result.samples,
            "seconds": round(result.seconds, 1),
            "notes": list(result.notes),
        }
        self._work.keep(self._stage, self._key, record)
        return record

    def state(self, record: Mapping[str, Any], dense: TrainedState) -> TrainedState:
        return TrainedState(
            name=self._name,
            parent=dense.name,
            method="one-shot pruning with refit",
            state_path=self._path,
            state_digest=record["digest"],
            settings={name: value for name, value in record.items() if name not in ("digest", "seconds")},
            seconds=record["seconds"],
        )


def _holds(path: Path, digest: str) -> bool:
    try:
        return state_digest(safetensors.torch.load_file(path)) == digest
    except (OSError, safetensors.SafetensorError):
        return False
