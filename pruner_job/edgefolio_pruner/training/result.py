"""Results of training: one state per level, with its digest, masks and accuracy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch


@dataclass(frozen=True)
class MaskSummary:
    """How many values of one parameter a level keeps."""

    parameter: str
    kept: int
    total: int


@dataclass(frozen=True)
class TrainedLevel:
    """One trained model: ``dense`` (level 0) or ``sparse-1``, ``sparse-2``, ...

    ``state_path`` is the state dict (safetensors; pruned weights are exact zeros) and ``state_digest`` its
    :func:`state_digest`. ``kept_weights`` of ``prunable_weights`` are not masked. ``seconds`` is the time of its
    training, over all restarts.
    """

    name: str
    level: int
    parent: str | None
    state_path: Path
    state_digest: str
    kept_weights: int
    prunable_weights: int
    masks: tuple[MaskSummary, ...]
    validation_correct: int
    validation_samples: int
    seconds: float

    @property
    def validation_accuracy_percent(self) -> float:
        """Top-1 accuracy on the validation part."""
        return 100.0 * self.validation_correct / self.validation_samples

    def state(self) -> dict[str, torch.Tensor]:
        """The state dict, read from ``state_path``."""
        state: dict[str, torch.Tensor] = safetensors.torch.load_file(self.state_path)
        return state


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """The sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
