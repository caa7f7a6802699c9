"""From the client's requests to the figures of the table and to what must hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demo.split.requests import FAILED, WRONG, Request
from demo.summary import percentile

__all__ = ["Act", "Check", "Figures", "checks", "figures"]


@dataclass(frozen=True, kw_only=True)
class Act:
    """One stretch of the load, in seconds of the clock of its requests. ``disturbs``: something is broken in it.

    ``split_must_answer``: an act in which the peers are there, and so have to be heard of.
    """

    name: str
    start: float
    end: float
    disturbs: bool
    split_must_answer: bool


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Requests that were sent in one act, by who answered; milliseconds are ``None`` where nothing was answered."""

    act: Act
    requests: int
    failed: int
    nobodys: int
    by_split: int
    by_fallback: int
    late: int
    p50_milliseconds: float | None
    p95_milliseconds: float | None
    longest_milliseconds: float | None


@dataclass(frozen=True, kw_only=True)
class Check:
    """Something that must hold in every run."""

    name: str
    passed: bool
    detail: str


def figures(
    requests: Sequence[Request], acts: Sequence[Act], *, split: str, fallback: str, objective: float
) -> tuple[Figures, ...]:
    """The figures of each act; ``late`` counts answers that took longer than ``objective`` milliseconds."""
    result = []
    for act in acts:
        sent = [each for each in requests if act.start <= each.sent < act.end]
        times = [each.milliseconds for each in sent if each.by != FAILED]
        result.append(
            Figures(
                act=act,
                requests=len(sent),
                failed=sum(each.by == FAILED for each in sent),
                nobodys=sum(each.by not in (FAILED, split, fallback) for each in sent),
                by_split=sum(each.by == split for each in sent),
                by_fallback=sum(each.by == fallback for each in sent),
                late=sum(time > objective for time in times),
                p50_milliseconds=percentile(times, 50) if times else None,
                p95_milliseconds=percentile(times, 95) if times else None,
                longest_milliseconds=max(times, default=None),
            )
        )
    return tuple(result)


def checks(
    requests: Sequence[Request],
    found: Sequence[Figures],
    counts: Mapping[str, Mapping[str, int]],
    *,
    split: str,
    fallback: str,
) -> tuple[Check, ...]:
    """What must hold. ``counts`` are the worker's own, ``before`` and ``after`` the load, by who answered."""
    failed = [each for each in requests if each.by == FAILED]
    others = [each for each in requests if each.by not in (FAILED, split, fallback)]
    silent = [each.act.name for each in found if each.act.split_must_answer and not each.by_split]
    own = {by: counts.get("after", {}).get(by, 0) - counts.get("before", {}).get(by, 0) for by in ("split", "fallback")}
    seen = {
        "split": sum(each.by == split for each in requests),
        "fallback": sum(each.by == fallback for each in requests),
    }
    return (
        Check(
            name="no failed request",
            passed=bool(requests) and not failed,
            detail=f"{len(failed)} of {len(requests)} failed" if failed else f"{len(requests)} requests answered",
        ),
        Check(
            name="every answer is the split's or the fallback's to that very input",
            passed=not others,
            detail=(
                f"{len(others)} are not, of those {sum(each.by == WRONG for each in others)} nobody's"
                if others
                else f"{len(requests) - len(failed)} answers compared"
            ),
        ),
        Check(
            name="the split answers whenever both nodes and the link are there",
            passed=not silent,
            detail=f"not during: {', '.join(silent)}" if silent else "before the faults and after each of them",
        ),
        Check(
            name="the worker's metrics say of who answered what the answers say",
            passed=own == seen,
            detail=f"metrics {own['split']} and {own['fallback']}, answers {seen['split']} and {seen['fallback']}",
        ),
    )
