"""Interface of the pruning methods.

A new method is one class in one module of this folder, its entry in ``METHODS`` and its field in ``spec.methods``. It
yields weights for the candidates; exact pruning, proof, export, profile, selection and publishing follow by themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors.torch
import torch

from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.spatial import CapturedModel
from edgefolio_pruner.work.directory import WorkDirectory

#: The candidate that all others are compared with.
DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class CandidateWeights:
    """A state dict before exact pruning, and its provenance for manifest and report.

    ``method`` is one phrase and ``settings`` its numbers and notes; both are part of the candidate's key. ``seconds``
    is the time it took, which differs from run to run and is not.
    """

    name: str
    parent: str | None
    method: str
    path: Path
    digest: str
    settings: Mapping[str, Any]
    seconds: float | None
    held: Mapping[str, torch.Tensor] | None = field(default=None, repr=False, compare=False)
    """The state dict where it is in memory in any case."""

    def load(self) -> dict[str, torch.Tensor]:
        """The state dict, of tensors that nobody writes into."""
        if self.held is not None:
            return dict(self.held)
        state: dict[str, torch.Tensor] = safetensors.torch.load_file(self.path)
        return state


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """Inputs of every method. ``threads`` determine a result's bits, so they are part of the keys."""

    source: MakingSource
    work: WorkDirectory
    threads: int
    progress: Progress


class Method(ABC):
    """One method, with the settings that a portfolio asks for."""

    stage: ClassVar[str]
    """The stage that it reports progress under."""
    products: ClassVar[str]
    """Plural noun for its results in progress messages."""
    makes_dense: ClassVar[bool] = False
    """Whether the dense model is the first of its results; else it is given that model."""

    @classmethod
    @abstractmethod
    def asked_for(cls, portfolio: ModelPortfolio) -> Self | None:
        """The method as ``portfolio`` wants it; ``None`` if it does not."""

    @abstractmethod
    def pieces(self) -> tuple[str, ...]:
        """Independent parts: a Job may make each in a pod of its own.

        In the order of :func:`edgefolio.contract.work_pieces.pieces_of`, by which the operator counts them.
        """

    def require_possible(self, captured: CapturedModel) -> tuple[str, ...]:
        """What is to be told of this method on the network, before anything is made.

        Raises :class:`~edgefolio.errors.UserError` if it can make nothing of it.
        """
        del captured
        return ()

    @abstractmethod
    def make(
        self, bench: Workbench, *, dense: CandidateWeights | None, pieces: Collection[str]
    ) -> tuple[CandidateWeights, ...]:
        """The weights of ``pieces``, the same bits whichever are made together; finished ones are not made again.

        ``dense`` is ``None`` only for a method that makes the dense model. Raises
        :class:`~edgefolio.errors.UserError` for input that the method cannot work on.
        """
