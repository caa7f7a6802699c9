"""The trained models that candidates come from: levels of sparse training, or the user's own weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from edgefolio.files import write_durably
from edgefolio.specification import Methods, SparseTraining
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.training import state_digest, train_levels
from edgefolio_pruner.work.directory import WorkDirectory

DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class TrainedState:
    """Weights of a candidate before spatial pruning, where they lie, and how they came to be.

    ``seconds`` is the time it took; unlike the settings it is another one each time.
    """

    name: str
    parent: str | None
    method: str
    state_path: Path
    state_digest: str
    settings: Mapping[str, Any]
    seconds: float | None

    def state(self) -> dict[str, torch.Tensor]:
        """The state dict."""
        state: dict[str, torch.Tensor] = safetensors.torch.load_file(self.state_path)
        return state


def trained_states(
    source: MakingSource, methods: Methods, *, work: WorkDirectory, threads: int, progress: Progress
) -> tuple[TrainedState, ...]:
    """The dense model first, then the sparse levels. What an earlier run finished is not trained again."""
    if methods.sparse_training is None:
        return (given_state(source, work),)
    specification = methods.sparse_training
    key = {**source.record, "specification": specification.model_dump(mode="json"), "threads": threads}
    levels = train_levels(
        specification=specification,
        build=source.build,
        initial_state=source.initial_state,
        data=source.data,
        seed=source.seed,
        threads=threads,
        work_directory=work.folder("train", key),
        progress=progress,
    )
    return tuple(
        TrainedState(
            name=level.name,
            parent=level.parent,
            method=_dense_method(source) if level.level == 0 else f"sparse training ({specification.sparsity})",
            state_path=level.state_path,
            state_digest=level.state_digest,
            settings=_settings(source, specification, level.level)
            | {
                "keptWeights": level.kept_weights,
                "prunableWeights": level.prunable_weights,
            },
            seconds=level.seconds,
        )
        for level in levels
    )


def given_state(source: MakingSource, work: WorkDirectory) -> TrainedState:
    """The user's own weights as the dense model."""
    assert source.initial_state is not None
    assert source.initial_digest is not None
    path = work.folder("given", source.record) / "dense.safetensors"
    if not path.is_file() or state_digest(safetensors.torch.load_file(path)) != source.initial_digest:
        write_durably(path, safetensors.torch.save(dict(source.initial_state)), field="--work-dir")
    return TrainedState(
        name=DENSE,
        parent=None,
        method=_dense_method(source),
        state_path=path,
        state_digest=source.initial_digest,
        settings={},
        seconds=None,
    )


def _dense_method(source: MakingSource) -> str:
    return "dense training" if source.initial_state is None else "given weights"


def _settings(source: MakingSource, specification: SparseTraining, level: int) -> dict[str, Any]:
    if level == 0:
        return {} if source.initial_state is not None else {"epochs": specification.dense_epochs}
    return {
        "level": level,
        "prunePercent": specification.prune_percent,
        "epochs": specification.epochs_per_level,
        "rewindStep": specification.rewind_step,
    }
