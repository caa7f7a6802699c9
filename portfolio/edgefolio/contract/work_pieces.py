"""Independent parts of a pruning run, by name: the operator runs one pod for each, the pruner makes one."""

from __future__ import annotations

from edgefolio.specification.making import Methods

#: All levels of sparse training: each needs the one before it.
TRAINING = "training"
_ONE_SHOT = "oneshot-"


def pieces_of(methods: Methods) -> tuple[str, ...]:
    """Names of the pieces, longest work first. Only a model with given weights has several."""
    percents = methods.one_shot.macs_percent if methods.one_shot is not None else ()
    training = (TRAINING,) if methods.sparse_training is not None else ()
    return (*training, *dict.fromkeys(one_shot_piece(percent) for percent in percents))


def one_shot_piece(macs_percent: int) -> str:
    """Name of the piece, and of its candidate, that keeps ``macs_percent`` of the multiply-accumulates."""
    return f"{_ONE_SHOT}{macs_percent}"
