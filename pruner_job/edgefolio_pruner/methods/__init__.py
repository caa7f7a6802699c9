"""The pruning methods: one class in one module of this folder is one method (see :mod:`.base`)."""

from __future__ import annotations

from collections.abc import Sequence

from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.methods.base import DENSE, CandidateWeights, Method, Workbench
from edgefolio_pruner.methods.given_weights import given_weights
from edgefolio_pruner.methods.one_shot import OneShotMethod
from edgefolio_pruner.methods.sparse_training import SparseTrainingMethod

__all__ = [
    "DENSE",
    "METHODS",
    "CandidateWeights",
    "Method",
    "Workbench",
    "asked_for",
    "given_weights",
    "make_all",
    "make_piece",
]

#: All methods. Those that make the dense model come first.
METHODS: tuple[type[Method], ...] = (SparseTrainingMethod, OneShotMethod)


def asked_for(portfolio: ModelPortfolio, known: Sequence[type[Method]] = METHODS) -> tuple[Method, ...]:
    """The methods of ``known`` that ``portfolio`` wants."""
    found = [method.asked_for(portfolio) for method in known]
    return tuple(method for method in found if method is not None)


def make_all(methods: Sequence[Method], bench: Workbench) -> tuple[CandidateWeights, ...]:
    """The dense model first, then the results of all methods in their order."""
    made: list[CandidateWeights] = []
    if not any(method.makes_dense for method in methods):
        made.append(given_weights(bench.source, bench.work))
    for method in methods:
        found = method.make(bench, dense=made[0] if made else None, pieces=method.pieces())
        bench.progress(stage=method.stage, fraction=1.0, message=f"{len(found)} {method.products}")
        made += found
    return tuple(made)


def make_piece(methods: Sequence[Method], piece: str, bench: Workbench) -> tuple[CandidateWeights, ...]:
    """The results of one piece, with the user's weights as the dense model."""
    method = next(method for method in methods if piece in method.pieces())
    dense = None if method.makes_dense else given_weights(bench.source, bench.work)
    return method.make(bench, dense=dense, pieces=(piece,))
