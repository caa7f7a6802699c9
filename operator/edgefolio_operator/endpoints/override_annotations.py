"""Override annotations of pods and nodes: pin a variant, pause switching. Pure.

The pod's annotation counts before the node's. A pin that names no variant is an issue, and the next level's counts. A
pause that is neither true nor false is an issue too, and pauses: that is the safer reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from edgefolio.specification.annotations import FALSE_WORDS, TRUE_WORDS
from edgefolio.specification.annotations import is_paused as says_pause
from edgefolio_operator import labels, reasons
from edgefolio_operator.endpoints.objectives import Issue, Level

_LONGEST_SHOWN = 60

#: Annotations by level, nearest first.
Levels = Iterable[tuple[Level, Mapping[str, str]]]


def pinned_variant(
    levels: Levels, *, known: Sequence[str], splits: Sequence[str] = (), issues: list[Issue]
) -> str | None:
    """The pinned variant; a name that is not ``known`` is added to ``issues``."""
    for level, value in _values(levels, labels.PIN_VARIANT_ANNOTATION):
        if value in known:
            return value
        what = (
            "is a split over several nodes, which no agent of this release serves"
            if value in splits
            else f"is not one of {', '.join(known)}"
        )
        message = f"{labels.PIN_VARIANT_ANNOTATION}: {value[:_LONGEST_SHOWN]!r} {what}; it is not pinned."
        issues.append(
            Issue(level=level, key=labels.PIN_VARIANT_ANNOTATION, reason=reasons.UNKNOWN_VARIANT, message=message)
        )
    return None


def is_paused(levels: Levels, *, issues: list[Issue]) -> bool:
    """Whether switching is paused; a value that is neither true nor false is added to ``issues``."""
    for level, value in _values(levels, labels.PAUSED_ANNOTATION):
        if value.lower() not in FALSE_WORDS | TRUE_WORDS:
            message = (
                f"{labels.PAUSED_ANNOTATION}: {value[:_LONGEST_SHOWN]!r} is neither true nor false; "
                "it is taken as true."
            )
            issues.append(
                Issue(level=level, key=labels.PAUSED_ANNOTATION, reason=reasons.MALFORMED_PAUSE, message=message)
            )
        return says_pause(value)
    return False


def _values(levels: Levels, key: str) -> Iterator[tuple[Level, str]]:
    for level, written in levels:
        if key in written:
            yield level, written[key].strip()
