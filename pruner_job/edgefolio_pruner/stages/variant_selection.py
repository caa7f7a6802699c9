"""Selection of variants: a Pareto front without ties, spread over the latencies. Pure: measurements in, names out.

Three rules, in this order:

*Floors.* A candidate below a floor (accuracy, loss against the dense model, recall of its weakest class) is left out.

*Makes no difference.* A candidate is left out if one that is kept stands in for it: it *covers* it (at least as good
within the epsilons in accuracy, latency and memory), or it *ties and is faster*: the 95 % intervals of the two
accuracies overlap, they differ by at most :data:`TIE_EPSILONS` times the accuracy epsilon, and it is faster by more
than the latency epsilon, without more memory. (On small validation sets even distant accuracies overlap, which proves
nothing; hence the bound. ``accuracy_epsilon_points = 0`` says that every difference counts: nothing ties.) Overlap is
not transitive, so candidates are walked from the most accurate on: the first one left names who may stand in for it,
the fastest of those is kept, and only what *that one* stands in for is left out. So every candidate that is left out
is stood in for by a kept one directly, and the portfolio's best is the most accurate candidate or ties with it. The
fastest stays.

*Coverage* (:mod:`.coverage`), if more remain than the portfolio may hold: of the sets with the fastest, the best and
the smallest widest gap in log latency (within the latency epsilon) the one that loses the least accuracy in its gaps.
Candidates beside the front, which earned their place by memory alone, fill what is left, the leanest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.specification import Selection
from edgefolio_pruner.stages.coverage import Point, spread

#: Accuracies farther apart than this many epsilons are no tie, however wide their intervals are.
TIE_EPSILONS = 3.0
_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A measured candidate: accuracy on validation, latency of one request batch, memory while it serves.

    ``accuracy_interval`` is the 95 % interval of the accuracy (``None``: it is exact), ``lowest_recall_percent`` the
    recall of the class ``lowest_class`` that it recognizes worst.
    """

    name: str
    accuracy_percent: float
    latency_milliseconds: float
    memory_bytes: int
    accuracy_interval: tuple[float, float] | None = None
    lowest_recall_percent: float | None = None
    lowest_class: str = ""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Selection rules. ``None`` sets no floor; the loss is against the dense candidate."""

    max_variants: int
    score: str = "accuracy"
    """What accuracies are called in reasons."""
    min_accuracy_percent: float | None = None
    max_accuracy_loss_points: float | None = None
    min_class_recall_percent: float | None = None
    accuracy_epsilon_points: float = 0.3
    latency_epsilon_percent: float = 5.0
    memory_epsilon_percent: float = 5.0


def rules_of(selection: Selection, score: str) -> Rules:
    """The rules of a portfolio; ``score`` is what the accuracy is called."""

    def number(text: str | None) -> float | None:
        return None if text is None else float(text)

    return Rules(
        score=score,
        max_variants=selection.max_variants,
        min_accuracy_percent=number(selection.min_accuracy_percent),
        max_accuracy_loss_points=number(selection.max_accuracy_loss_points),
        min_class_recall_percent=number(selection.min_class_recall_percent),
        accuracy_epsilon_points=float(selection.accuracy_epsilon_points),
        latency_epsilon_percent=float(selection.latency_epsilon_percent),
        memory_epsilon_percent=float(selection.memory_epsilon_percent),
    )


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

    If none meets the floors the dense model alone is chosen and ``accuracy_floor_met`` is false. The result
    does not depend on the order of ``candidates``.
    """
    ordered = sorted(candidates, key=_preference)
    reasons: dict[str, str] = {}
    reference = next(candidate for candidate in ordered if candidate.name == dense)
    able = []
    for candidate in ordered:
        problem = below_floor(candidate, reference, rules)
        if problem is None:
            able.append(candidate)
        else:
            reasons[candidate.name] = problem
    if not able:
        reasons.pop(dense)
        return _result([reference], reasons, accuracy_floor_met=False)
    kept = _different(able, rules, reasons)
    chosen = _spread(kept, rules)
    for candidate in kept:
        if candidate not in chosen:
            reasons[candidate.name] = (
                f"the portfolio holds at most {rules.max_variants}, and the others leave smaller gaps in latency, "
                f"or lose less {rules.score} in them"
            )
    return _result(chosen, reasons, accuracy_floor_met=True)


def covers(one: Candidate, other: Candidate, rules: Rules) -> bool:
    """Whether ``one`` is at least as good as ``other`` within the epsilons."""
    return (
        one.accuracy_percent >= other.accuracy_percent - rules.accuracy_epsilon_points
        and one.latency_milliseconds <= other.latency_milliseconds * (1 + rules.latency_epsilon_percent / 100)
        and one.memory_bytes <= other.memory_bytes * (1 + rules.memory_epsilon_percent / 100)
    )


def ties_and_is_faster(one: Candidate, other: Candidate, rules: Rules) -> bool:
    """Whether the accuracies of the two cannot be told apart, and ``one`` is the faster, without more memory."""
    if one.accuracy_interval is None or other.accuracy_interval is None or rules.accuracy_epsilon_points == 0:
        return False
    return (
        one.accuracy_interval[0] <= other.accuracy_interval[1]
        and other.accuracy_interval[0] <= one.accuracy_interval[1]
        and abs(one.accuracy_percent - other.accuracy_percent)
        <= TIE_EPSILONS * rules.accuracy_epsilon_points + _TOLERANCE
        and one.latency_milliseconds * (1 + rules.latency_epsilon_percent / 100) < other.latency_milliseconds
        and one.memory_bytes <= other.memory_bytes * (1 + rules.memory_epsilon_percent / 100)
    )


def stands_in(one: Candidate, other: Candidate, rules: Rules) -> bool:
    """Whether ``other`` makes no difference beside ``one``."""
    return covers(one, other, rules) or ties_and_is_faster(one, other, rules)


def most_accurate(candidates: Sequence[Candidate]) -> Candidate:
    """The most accurate candidate; of equals the fastest."""
    return min(candidates, key=_preference)


def fastest(candidates: Sequence[Candidate]) -> Candidate:
    """The fastest candidate; of equals the most accurate."""
    return min(candidates, key=lambda candidate: (candidate.latency_milliseconds, *_preference(candidate)))


def front_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that no faster one equals in accuracy, by latency."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: (one.latency_milliseconds, *_preference(one))):
        if not front or candidate.accuracy_percent > front[-1].accuracy_percent:
            front.append(candidate)
    return front


def _preference(candidate: Candidate) -> tuple[float, float, int, str]:
    return (
        -candidate.accuracy_percent,
        candidate.latency_milliseconds,
        candidate.memory_bytes,
        candidate.name,
    )


def below_floor(candidate: Candidate, dense: Candidate, rules: Rules) -> str | None:
    """Which floor the candidate is below, with the figures; ``None``: below none."""
    found = f"its validation {rules.score}, {candidate.accuracy_percent:.2f} %, is"
    minimum = rules.min_accuracy_percent
    if minimum is not None and candidate.accuracy_percent < minimum - _TOLERANCE:
        return f"{found} below the floor of {minimum:g} %"
    allowed = rules.max_accuracy_loss_points
    if allowed is not None and candidate.accuracy_percent < dense.accuracy_percent - allowed - _TOLERANCE:
        return f"{found} more than {allowed:g} points below the dense model's {dense.accuracy_percent:.2f} %"
    least, recall = rules.min_class_recall_percent, candidate.lowest_recall_percent
    if least is not None and recall is not None and recall < least - _TOLERANCE:
        return (
            f"it recognizes {recall:.2f} % of the validation samples of class {candidate.lowest_class!r}, "
            f"below the floor of {least:g} % for every class"
        )
    return None


def _different(able: Sequence[Candidate], rules: Rules, reasons: dict[str, str]) -> list[Candidate]:
    """The candidates that make a difference, by the walk of the module's text; ``reasons`` says why not the others."""
    quickest = fastest(able)
    left = sorted(able, key=_preference)
    kept: list[Candidate] = []
    while left:
        stand_in = _stand_in(left[0], left, quickest, rules, is_best=not kept)
        kept.append(stand_in)
        stayed = []
        for candidate in left:
            if candidate == stand_in:
                continue
            if candidate == quickest or not stands_in(stand_in, candidate, rules):
                stayed.append(candidate)
            else:
                reasons[candidate.name] = _no_difference(stand_in, candidate, rules)
        left = stayed
    return kept


def _stand_in(
    leader: Candidate, left: Sequence[Candidate], quickest: Candidate, rules: Rules, *, is_best: bool
) -> Candidate:
    """Who is kept in the place of ``leader``: the fastest that ties with it; else the best of those that cover it."""
    if leader == quickest:
        return leader
    faster = [candidate for candidate in left if ties_and_is_faster(candidate, leader, rules)]
    if faster:
        bound = fastest(faster).latency_milliseconds * (1 + rules.latency_epsilon_percent / 100)
        return most_accurate([candidate for candidate in faster if candidate.latency_milliseconds <= bound])
    if is_best:
        return leader
    covering = [candidate for candidate in left if covers(candidate, leader, rules)]
    return min(covering, key=lambda candidate: (-_merit(candidate, rules), *_preference(candidate)))


def _no_difference(kept: Candidate, other: Candidate, rules: Rules) -> str:
    figures = (
        f"{kept.accuracy_percent:.2f} % against {other.accuracy_percent:.2f} %, "
        f"{kept.latency_milliseconds:.2f} ms against {other.latency_milliseconds:.2f} ms, "
        f"{kept.memory_bytes / 2**20:.1f} MiB against {other.memory_bytes / 2**20:.1f} MiB"
    )
    scores = "accuracies" if rules.score == "accuracy" else "scores"
    if covers(kept, other, rules):
        return f"{kept.name} is as good or better: {figures}"
    return f"{kept.name} is faster, and their {scores} cannot be told apart (95 % intervals overlap): {figures}"


def _merit(candidate: Candidate, rules: Rules) -> float:
    """How good a candidate is, in units of the epsilons: one that covers another clearly comes before it."""
    return (
        candidate.accuracy_percent / max(rules.accuracy_epsilon_points, _TOLERANCE)
        - math.log(candidate.latency_milliseconds) / max(math.log1p(rules.latency_epsilon_percent / 100), _TOLERANCE)
        - math.log(candidate.memory_bytes + 1) / max(math.log1p(rules.memory_epsilon_percent / 100), _TOLERANCE)
    )


def _spread(kept: Sequence[Candidate], rules: Rules) -> list[Candidate]:
    """At most ``max_variants`` of ``kept``, by the objective of the module's text."""
    count = rules.max_variants
    if len(kept) <= count:
        return list(kept)
    if count == 1:
        return [most_accurate(kept)]
    front = front_of(kept)
    if len(front) <= count:
        beside = sorted(
            (candidate for candidate in kept if candidate not in front), key=lambda one: (one.memory_bytes, one.name)
        )
        return [*front, *beside[: count - len(front)]]
    points = [Point(candidate.latency_milliseconds, candidate.accuracy_percent) for candidate in front]
    places = spread(points, count, latency_tolerance_percent=rules.latency_epsilon_percent)
    return [front[place] for place in places]


def _result(kept: Sequence[Candidate], reasons: dict[str, str], *, accuracy_floor_met: bool) -> SelectionResult:
    return SelectionResult(
        chosen=tuple(candidate.name for candidate in sorted(kept, key=_preference, reverse=True)),
        rejected=tuple(Rejection(name=name, reason=reason) for name, reason in sorted(reasons.items())),
        accuracy_floor_met=accuracy_floor_met,
    )
