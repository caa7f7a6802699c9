"""Selection of variants, a thinned Pareto front. Pure: measurements in, names and reasons out.

A candidate covers another one if it is at least as good within an epsilon in accuracy, latency and memory: the other
makes no difference and is left out. Candidates are taken best first (in units of the epsilons), so each one
that is left out is covered by one that is kept. The most accurate and the fastest are kept in any case. If more remain
than the portfolio may hold, those are taken whose latencies lie farthest apart on a logarithmic scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A measured candidate: accuracy on validation, latency of one request batch, memory while it serves."""

    name: str
    accuracy_percent: float
    latency_milliseconds: float
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Selection rules. ``None`` sets no floor; the loss is against the dense candidate."""

    max_variants: int
    min_accuracy_percent: float | None = None
    max_accuracy_loss_points: float | None = None
    accuracy_epsilon_points: float = 0.3
    latency_epsilon_percent: float = 5.0
    memory_epsilon_percent: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A candidate that is left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SelectionResult:
    """The portfolio: names from the least to the most accurate, and every other candidate with its reason."""

    chosen: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    accuracy_floor_met: bool


def select(candidates: Sequence[Candidate], *, dense: str, rules: Rules) -> SelectionResult:
    """Choose from ``candidates`` (names differ); ``dense`` names the one that losses are counted from.

    If none meets the accuracy floor the dense model alone is chosen and ``accuracy_floor_met`` is false. The result
    does not depend on the order of ``candidates``.
    """
    ordered = sorted(candidates, key=_preference)
    reasons: dict[str, str] = {}
    reference = next(candidate for candidate in ordered if candidate.name == dense)
    able = []
    for candidate in ordered:
        problem = _below_floor(candidate, reference, rules)
        if problem is None:
            able.append(candidate)
        else:
            reasons[candidate.name] = problem
    if not able:
        reasons.pop(dense)
        return _result([reference], reasons, accuracy_floor_met=False)
    kept = _uncovered(able, rules, reasons)
    if len(kept) > rules.max_variants:
        spread = _spread(kept, rules.max_variants)
        for candidate in kept:
            if candidate not in spread:
                reasons[candidate.name] = (
                    f"the portfolio holds at most {rules.max_variants}, and the others spread the latencies better"
                )
        kept = spread
    return _result(kept, reasons, accuracy_floor_met=True)


def covers(one: Candidate, other: Candidate, rules: Rules) -> bool:
    """Whether ``one`` is at least as good as ``other`` within the epsilons."""
    return (
        one.accuracy_percent >= other.accuracy_percent - rules.accuracy_epsilon_points
        and one.latency_milliseconds <= other.latency_milliseconds * (1 + rules.latency_epsilon_percent / 100)
        and one.memory_bytes <= other.memory_bytes * (1 + rules.memory_epsilon_percent / 100)
    )


def most_accurate(candidates: Sequence[Candidate]) -> Candidate:
    """The most accurate candidate; of equals the fastest."""
    return min(candidates, key=_preference)


def fastest(candidates: Sequence[Candidate]) -> Candidate:
    """The fastest candidate; of equals the most accurate."""
    return min(candidates, key=lambda candidate: (candidate.latency_milliseconds, *_preference(candidate)))


def _preference(candidate: Candidate) -> tuple[float, float, int, str]:
    return (
        -candidate.accuracy_percent,
        candidate.latency_milliseconds,
        candidate.memory_bytes,
        candidate.name,
    )


def _below_floor(candidate: Candidate, dense: Candidate, rules: Rules) -> str | None:
    found = f"its validation accuracy, {candidate.accuracy_percent:.2f} %, is"
    minimum = rules.min_accuracy_percent
    if minimum is not None and candidate.accuracy_percent < minimum - _TOLERANCE:
        return f"{found} below the floor of {minimum:g} %"
    allowed = rules.max_accuracy_loss_points
    if allowed is not None and candidate.accuracy_percent < dense.accuracy_percent - allowed - _TOLERANCE:
        return f"{found} more than {allowed:g} points below the dense model's {dense.accuracy_percent:.2f} %"
    return None


def _uncovered(able: Sequence[Candidate], rules: Rules, reasons: dict[str, str]) -> list[Candidate]:
    """The candidates that no better one covers; the others' reasons go into ``reasons``."""
    anchors = {most_accurate(able).name, fastest(able).name}
    best_first = sorted(able, key=lambda candidate: (-_merit(candidate, rules), *_preference(candidate)))
    kept = [candidate for candidate in best_first if candidate.name in anchors]
    for candidate in best_first:
        if candidate.name in anchors:
            continue
        covering = next((other for other in kept if covers(other, candidate, rules)), None)
        if covering is None:
            kept.append(candidate)
        else:
            reasons[candidate.name] = (
                f"{covering.name} is as good or better: "
                f"{covering.accuracy_percent:.2f} % against {candidate.accuracy_percent:.2f} %, "
                f"{covering.latency_milliseconds:.2f} ms against {candidate.latency_milliseconds:.2f} ms, "
                f"{covering.memory_bytes / 2**20:.1f} MiB against {candidate.memory_bytes / 2**20:.1f} MiB"
            )
    return kept


def _merit(candidate: Candidate, rules: Rules) -> float:
    """How good a candidate is, in units of the epsilons: one that covers another clearly comes before it."""
    return (
        candidate.accuracy_percent / max(rules.accuracy_epsilon_points, _TOLERANCE)
        - math.log(candidate.latency_milliseconds) / max(math.log1p(rules.latency_epsilon_percent / 100), _TOLERANCE)
        - math.log(candidate.memory_bytes + 1) / max(math.log1p(rules.memory_epsilon_percent / 100), _TOLERANCE)
    )


def _spread(kept: Sequence[Candidate], count: int) -> list[Candidate]:
    """``count`` of ``kept`` with the widest smallest gap in log latency; the most accurate and the fastest among them.

    Dynamic programming over the candidates by latency: ``best[i][j]`` is the widest smallest gap of ``j`` candidates of
    which ``i`` is the slowest. Candidates that must be in are never stepped over.
    """
    if count == 1:
        return [most_accurate(kept)]
    by_latency = sorted(
        kept,
        key=lambda candidate: (
            candidate.latency_milliseconds,
            candidate.name != fastest(kept).name,
            *_preference(candidate),
        ),
    )
    must = {index for index, candidate in enumerate(by_latency) if candidate == most_accurate(kept)} | {0}
    position = [math.log(candidate.latency_milliseconds) for candidate in by_latency]
    best: list[dict[int, tuple[float, tuple[int, ...]]]] = [{1: (math.inf, (0,))}]
    for index in range(1, len(by_latency)):
        here: dict[int, tuple[float, tuple[int, ...]]] = {}
        for before in range(index):
            if any(before < needed < index for needed in must):
                continue
            for chosen, (gap, path) in best[before].items():
                reached = (min(gap, position[index] - position[before]), (*path, index))
                if chosen < count and (chosen + 1 not in here or reached > here[chosen + 1]):
                    here[chosen + 1] = reached
        best.append(here)
    last_needed = max(must)
    _, path = max(best[index][count] for index in range(last_needed, len(by_latency)) if count in best[index])
    return [by_latency[index] for index in path]


def _result(kept: Sequence[Candidate], reasons: dict[str, str], *, accuracy_floor_met: bool) -> SelectionResult:
    return SelectionResult(
        chosen=tuple(candidate.name for candidate in sorted(kept, key=_preference, reverse=True)),
        rejected=tuple(Rejection(name=name, reason=reason) for name, reason in sorted(reasons.items())),
        accuracy_floor_met=accuracy_floor_met,
    )
