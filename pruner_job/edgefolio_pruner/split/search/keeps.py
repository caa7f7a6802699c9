"""Search for what each exchange of channels still sends: dynamic programming over (exchange, keep).

Each exchange has a few parts of its bytes that it may send, with what that takes (its readers' compute, its bytes) and
what is lost. Exchanges of one depth share one wait, which is gone if none of them sends anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

__all__ = ["Choice", "ExchangeOptions", "Option", "choices"]

#: Most choices that are held at a time; of more, evenly spaced ones are.
_WIDEST = 256


@dataclass(frozen=True, kw_only=True)
class Option:
    """A part of an exchange's bytes, what it takes in milliseconds, and the part of variances that is lost."""

    keep: float
    milliseconds: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class ExchangeOptions:
    """The options of one exchange, by the layer that reads it."""

    place: str
    depth: int
    options: tuple[Option, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An option for each exchange, and what they take and lose together."""

    milliseconds: float = 0.0
    loss: float = 0.0
    waits: int = 0
    keeps: tuple[tuple[str, float], ...] = ()


def choices(
    exchanges: Sequence[ExchangeOptions], *, wait_milliseconds: float, most_waits: int | None = None
) -> tuple[Choice, ...]:
    """All choices that no other beats in time and loss, at most ``most_waits`` of which wait; the fastest last."""
    found = [Choice()]
    ordered = sorted(exchanges, key=lambda each: each.depth)
    for _, group in groupby(ordered, key=lambda each: each.depth):
        # Whether anything is sent at this depth, and the choices so far.
        open_ones: dict[bool, list[Choice]] = {False: found}
        for exchange in group:
            reached: dict[bool, list[Choice]] = {}
            for sends, before in open_ones.items():
                for option in exchange.options:
                    reached.setdefault(sends or option.keep > 0, []).extend(
                        _with(choice, exchange.place, option) for choice in before
                    )
            open_ones = {sends: _front(reached[sends], most_waits is not None) for sends in sorted(reached)}
        together = [
            Choice(
                milliseconds=choice.milliseconds + sends * wait_milliseconds,
                loss=choice.loss,
                waits=choice.waits + sends,
                keeps=choice.keeps,
            )
            for sends, chosen in open_ones.items()
            for choice in chosen
        ]
        within = [choice for choice in together if most_waits is None or choice.waits <= most_waits]
        found = _front(within, most_waits is not None)
    return tuple(sorted(_front(found, by_waits=False), key=lambda choice: (choice.loss, choice.milliseconds)))


def _with(choice: Choice, place: str, option: Option) -> Choice:
    return Choice(
        milliseconds=choice.milliseconds + option.milliseconds,
        loss=choice.loss + option.loss,
        waits=choice.waits,
        keeps=(*choice.keeps, (place, option.keep)),
    )


def _front(found: Iterable[Choice], by_waits: bool) -> list[Choice]:
    """The choices that no other beats, with as few waits where these are limited."""
    ordered = sorted(found, key=lambda each: (each.waits if by_waits else 0, each.milliseconds, each.loss, each.keeps))
    kept: list[Choice] = []
    for _, group in groupby(ordered, key=lambda each: each.waits if by_waits else 0):
        best: list[Choice] = []
        for choice in group:
            if not best or choice.loss < best[-1].loss:
                best.append(choice)
        kept += _thinned(best)
    return kept


def _thinned(ordered: list[Choice]) -> list[Choice]:
    if len(ordered) <= _WIDEST:
        return ordered
    return [ordered[place * (len(ordered) - 1) // (_WIDEST - 1)] for place in range(_WIDEST)]
