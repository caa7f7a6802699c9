"""The pieces of a making that need nothing of each other, by name: the operator counts them, the pruner makes them."""

from __future__ import annotations

from edgefolio.specification.making import Methods

#: All levels of sparse training: each needs the one before it.
TRAINING = "training"
_ONE_SHOT = "oneshot-"


def pieces_of(methods: Methods) -> tuple[str, ...]:
    """Names of the pieces, the longest work first; several only where the dense model is given, not trained."""
    percents = methods.one_shot.macs_percent if methods.one_shot is not None else ()
    training = (TRAINING,) if methods.sparse_training is not None else ()
    return (*training, *dict.fromkeys(one_shot_piece(percent) for percent in percents))


def one_shot_piece(macs_percent: int) -> str:
    """The piece, and the candidate, of one part of the multiply-accumulates."""
    return f"{_ONE_SHOT}{macs_percent}"
