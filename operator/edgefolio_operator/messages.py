"""Phrases that several messages share."""

from __future__ import annotations

from collections.abc import Sequence

_LISTED = 5


def listed(items: Sequence[str], *, separator: str = ", ") -> str:
    """The first five of ``items``, and how many more there are."""
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return separator.join(items[:_LISTED]) + more
