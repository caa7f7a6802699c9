"""Independent parts of a pruning run, by name: the operator runs one pod for each, the pruner makes one."""

from __future__ import annotations

from edgefolio.specification.making import Methods

#: All levels of sparse training: each needs the one before it.
TRAINING = "training"
#: All one-shot variants by time: they share one table of times, measured on one machine.
LATENCY = "oneshot-latency"
_ONE_SHOT = "oneshot-"
_SPLIT = "split-"


def pieces_of(methods: Methods) -> tuple[str, ...]:
    """Names of the pieces, longest work first. Only a model with given weights has several."""
    one_shot = methods.one_shot
    percents = one_shot.macs_percent if one_shot is not None else ()
    training = (TRAINING,) if methods.sparse_training is not None else ()
    latency = (LATENCY,) if one_shot is not None and one_shot.latency_percent else ()
    splits = (split_piece(entry.name) for entry in methods.split)
    return (*training, *latency, *dict.fromkeys(one_shot_piece(percent) for percent in percents), *splits)


def split_piece(name: str) -> str:
    """Name of the piece, and of its variant, that divides the dense model as the entry ``name`` says."""
    return f"{_SPLIT}{name}"


def one_shot_piece(macs_percent: int) -> str:
    """Name of the piece, and of its candidate, that keeps ``macs_percent`` of the multiply-accumulates."""
    return f"{_ONE_SHOT}{macs_percent}"


def latency_candidate(latency_percent: int) -> str:
    """Name of the candidate that keeps ``latency_percent`` of the dense model's time."""
    return f"{LATENCY}-{latency_percent}"
