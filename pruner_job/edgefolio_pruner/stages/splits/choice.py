"""Choice of split members: of each entry the fastest plan that pays, apart from the variants of one node. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.shown_text import shown_rate
from edgefolio_pruner.split.result import ComparedPlan
from edgefolio_pruner.stages.variant_selection import Candidate, Rules, below_floor

__all__ = ["Asked", "ChosenSplit", "RejectedSplit", "SplitChoice", "Weighed", "choose_splits"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an entry asks of its plans."""

    name: str
    most_loss_points: float
    most_waits: int | None
    link: str
    refused: tuple[str, float] | None = None
    """Why there is no plan, and the accuracy of the nearest."""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A plan of an entry by its label: compared with the models of one node, and as a candidate."""

    label: str
    compared: ComparedPlan
    candidate: Candidate


@dataclass(frozen=True, kw_only=True)
class ChosenSplit:
    """The plan that becomes the variant called ``name``."""

    name: str
    weighed: Weighed


@dataclass(frozen=True, kw_only=True)
class RejectedSplit:
    """Why an entry gives no variant, with the figures of its nearest plan."""

    name: str
    reason: str
    accuracy_percent: float | None


@dataclass(frozen=True, kw_only=True)
class SplitChoice:
    """The splits of a portfolio."""

    chosen: tuple[ChosenSplit, ...] = ()
    rejected: tuple[RejectedSplit, ...] = ()


def choose_splits(
    entries: Sequence[tuple[Asked, Sequence[Weighed]]], *, dense: Candidate, rules: Rules, most: int
) -> SplitChoice:
    """At most ``most`` members, the fastest over their links; ``rules`` are the floors of all variants."""
    chosen: list[ChosenSplit] = []
    rejected: list[RejectedSplit] = []
    for asked, plans in entries:
        found = _best(asked, plans, dense, rules)
        if isinstance(found, Weighed):
            chosen.append(ChosenSplit(name=asked.name, weighed=found))
        else:
            rejected.append(found)
    ranked = sorted(chosen, key=lambda split: (split.weighed.compared.predicted_milliseconds, split.name))
    for split in ranked[most:]:
        rejected.append(_rejected(split.name, split.weighed, f"selection.maxSplits is {most}, and others are faster"))
    return SplitChoice(chosen=tuple(ranked[:most]), rejected=tuple(sorted(rejected, key=lambda split: split.name)))


def _best(asked: Asked, plans: Sequence[Weighed], dense: Candidate, rules: Rules) -> Weighed | RejectedSplit:
    """The fastest plan that pays; else the nearest with the reason."""
    if not plans:
        reason, accuracy = asked.refused or ("there is no plan", None)
        return RejectedSplit(name=asked.name, reason=reason, accuracy_percent=accuracy)
    few = [
        plan for plan in plans if asked.most_waits is None or plan.compared.plan.synchronisations <= asked.most_waits
    ]
    if not few:
        fewest = min(plans, key=lambda plan: plan.compared.plan.synchronisations)
        waits = fewest.compared.plan.synchronisations
        return _rejected(
            asked.name, fewest, f"no plan has at most {asked.most_waits} exchanges, the fewest are {waits}"
        )
    accurate = [plan for plan in few if plan.compared.accurate_enough]
    if not accurate:
        nearest = min(few, key=lambda plan: (-plan.candidate.accuracy_percent, _predicted(plan)))
        return _rejected(
            asked.name,
            nearest,
            f"no plan is within {asked.most_loss_points:g} points of the dense model's {dense.accuracy_percent:.2f} %; "
            f"the nearest, {nearest.compared.title}, has {nearest.candidate.accuracy_percent:.2f} %",
        )
    able = [plan for plan in accurate if below_floor(plan.candidate, dense, rules) is None]
    if not able:
        nearest = min(accurate, key=lambda plan: (-plan.candidate.accuracy_percent, _predicted(plan)))
        return _rejected(asked.name, nearest, below_floor(nearest.candidate, dense, rules) or "")
    paying = [plan for plan in able if plan.compared.pays]
    if not paying:
        nearest = min(able, key=lambda plan: _predicted(plan) - plan.compared.rival.milliseconds)
        return _rejected(asked.name, nearest, _why_not(nearest.compared, asked.link))
    return min(paying, key=lambda plan: (_predicted(plan), -plan.candidate.accuracy_percent, plan.label))


def _predicted(plan: Weighed) -> float:
    return plan.compared.predicted_milliseconds


def _why_not(plan: ComparedPlan, link: str) -> str:
    least = plan.least_bits_per_second
    further = (
        f"it would pay from {shown_rate(least)} on at this round trip"
        if least is not None
        else "over no link with this round trip would it be faster"
    )
    return (
        f"it does not pay over {link}: the nearest plan, {plan.title}, is predicted to take "
        f"{plan.predicted_milliseconds:.2f} ms, {plan.rival.name} on one node takes {plan.rival.milliseconds:.2f} ms; "
        f"{further}"
    )


def _rejected(name: str, plan: Weighed, reason: str) -> RejectedSplit:
    return RejectedSplit(
        name=name,
        reason=reason,
        accuracy_percent=plan.candidate.accuracy_percent,
    )
