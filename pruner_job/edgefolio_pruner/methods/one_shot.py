"""One-shot pruning as a method: weights for each entry of ``macsPercent``, without training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch

from edgefolio.contract.work_pieces import one_shot_piece
from edgefolio.files import write_durably
from edgefolio.specification import ModelPortfolio, OneShot
from edgefolio_pruner.methods.base import CandidateWeights, Method, Workbench
from edgefolio_pruner.oneshot import OneShotResult, prune_to_targets
from edgefolio_pruner.training import state_digest
from edgefolio_pruner.work.directory import WorkDirectory


class OneShotMethod(Method):
    """``methods.oneShot``. Each entry of ``macsPercent`` is a piece, and a candidate of the same name."""

    stage = "one-shot"
    products = "pruned models"

    def __init__(self, specification: OneShot, *, calibration_samples: int) -> None:
        self._percents = {one_shot_piece(percent): percent for percent in specification.macs_percent}
        self._calibration_samples = calibration_samples

    @classmethod
    def asked_for(cls, portfolio: ModelPortfolio) -> Self | None:
        """The method if ``methods.oneShot`` is there."""
        spec = portfolio.spec
        if spec.methods.one_shot is None:
            return None
        assert spec.data is not None
        return cls(spec.methods.one_shot, calibration_samples=spec.data.calibration_samples)

    def pieces(self) -> tuple[str, ...]:
        """One piece per entry of ``macsPercent``."""
        return tuple(self._percents)

    def make(
        self, bench: Workbench, *, dense: CandidateWeights | None, pieces: Collection[str]
    ) -> tuple[CandidateWeights, ...]:
        """Missing pieces are made together: this shares their common work and changes no bit."""
        assert dense is not None
        source, samples = bench.source, self._calibration_samples
        common = {
            **source.record,
            "dense": dense.digest,
            "calibrationSamples": samples,
            "threads": bench.threads,
            "torch": torch.__version__,
        }
        shelves = {
            percent: _Shelf(bench.work, percent, common | {"macsPercent": percent})
            for name, percent in self._percents.items()
            if name in pieces
        }
        records = {percent: shelf.kept() for percent, shelf in shelves.items()}
        missing = [percent for percent, record in records.items() if record is None]
        if missing:
            results = prune_to_targets(
                module=source.build_with(dense.load()),
                calibration=torch.from_numpy(source.data.calibration(samples, seed=source.seed)),
                macs_percents=missing,
                seed=source.seed,
                threads=bench.threads,
                progress=bench.progress,
            )
            records |= {result.macs_percent: shelves[result.macs_percent].keep(result) for result in results}
        return tuple(
            shelves[percent].weights(record, dense) for percent, record in records.items() if record is not None
        )


class _Shelf:
    """The place of one result in the work directory."""

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

    def weights(self, record: Mapping[str, Any], dense: CandidateWeights) -> CandidateWeights:
        return CandidateWeights(
            name=self._name,
            parent=dense.name,
            method="one-shot pruning with refit",
            path=self._path,
            digest=record["digest"],
            settings={name: value for name, value in record.items() if name not in ("digest", "seconds")},
            seconds=record["seconds"],
        )


def _holds(path: Path, digest: str) -> bool:
    try:
        return state_digest(safetensors.torch.load_file(path)) == digest
    except (OSError, safetensors.SafetensorError):
        return False
