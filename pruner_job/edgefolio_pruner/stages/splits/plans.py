"""The plans that are made of a split: by rows, and by channels for several amounts of traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgefolio.errors import UserError
from edgefolio_pruner.split.planning import KEEPS, PlannedSplit, SplitPlanner

__all__ = ["Layout", "Wire", "labels", "planned", "title_of"]

Layout = Literal["Auto", "Rows", "Channels"]
Wire = Literal["Float32", "UInt8"]
_ROWS = "rows"


def labels(layout: Layout, keeps: Sequence[float] = KEEPS) -> dict[str, float | None]:
    """The plans of a layout by the names of their folders, with the part of the dense traffic that each may send."""
    by_rows: dict[str, float | None] = {_ROWS: None}
    by_channels = {f"channels-{100 * keep:g}": keep for keep in sorted(set(keeps), reverse=True)}
    return {**(by_rows if layout != "Channels" else {}), **(by_channels if layout != "Rows" else {})}


def title_of(label: str) -> str:
    """The plan in a few words, as :attr:`PlannedSplit.title` has it."""
    return label if label == _ROWS else f"{label.replace('-', ', ')} %"


def planned(planner: SplitPlanner, keep: float | None, *, layout: Layout, wire: Wire) -> PlannedSplit | str:
    """The plan, or why there is none by rows where ``layout`` does not insist on one. Raises :class:`UserError`."""
    if keep is not None:
        return planner.plan(keep, wire=wire)
    try:
        return planner.by_rows()
    except UserError as error:
        if layout == "Rows":
            raise
        return f"no plan by rows: {error.problem}"
