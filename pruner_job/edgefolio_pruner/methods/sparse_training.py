"""Sparse training as a method: the dense model and levels of growing sparsity, each trained from the one before."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self

from edgefolio.contract.work_pieces import TRAINING
from edgefolio.specification import ModelPortfolio, SparseTraining
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.methods.base import CandidateWeights, Method, Workbench
from edgefolio_pruner.methods.given_weights import dense_method
from edgefolio_pruner.training import train_levels


class SparseTrainingMethod(Method):
    """``methods.sparseTraining``. It is one piece: each level needs the one before."""

    stage = "training"
    products = "trained models"
    makes_dense = True

    def __init__(self, specification: SparseTraining) -> None:
        self._specification = specification

    @classmethod
    def asked_for(cls, portfolio: ModelPortfolio) -> Self | None:
        """The method if ``methods.sparseTraining`` is there."""
        specification = portfolio.spec.methods.sparse_training
        return None if specification is None else cls(specification)

    def pieces(self) -> tuple[str, ...]:
        """All levels."""
        return (TRAINING,)

    def make(
        self, bench: Workbench, *, dense: CandidateWeights | None, pieces: Collection[str]
    ) -> tuple[CandidateWeights, ...]:
        """The dense model first, then the levels."""
        del dense, pieces
        source, specification = bench.source, self._specification
        key = {**source.record, "specification": specification.model_dump(mode="json"), "threads": bench.threads}
        levels = train_levels(
            specification=specification,
            build=source.build,
            initial_state=source.initial_state,
            data=source.data,
            seed=source.seed,
            threads=bench.threads,
            work_directory=bench.work.folder("train", key),
            progress=bench.progress,
        )
        return tuple(
            CandidateWeights(
                name=level.name,
                parent=level.parent,
                method=dense_method(source) if level.level == 0 else f"sparse training ({specification.sparsity})",
                path=level.state_path,
                digest=level.state_digest,
                settings={
                    **self._settings(source, level.level),
                    "keptWeights": level.kept_weights,
                    "prunableWeights": level.prunable_weights,
                },
                seconds=level.seconds,
            )
            for level in levels
        )

    def _settings(self, source: MakingSource, level: int) -> dict[str, Any]:
        specification = self._specification
        if level == 0:
            return {} if source.initial_state is not None else {"epochs": specification.dense_epochs}
        return {
            "level": level,
            "prunePercent": specification.prune_percent,
            "epochs": specification.epochs_per_level,
            "rewindStep": specification.rewind_step,
        }
