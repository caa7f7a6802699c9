"""Choice of a variant under given conditions: the assessment of each, and the tiers among them.

The choice is an order of tiers; the first tier that holds a variant decides. Only variants that physically can be
served (memory, also during the switch; not quarantined; a split whose peers are ready and that leaves the time to fall
back, where one node would meet the objectives by itself) take part:

1. inside memory objective, accuracy minimum and latency objective: the most accurate (highest rank);
2. inside memory objective and accuracy minimum, none meets the latency: the fastest of these. The accuracy minimum is a
   hard floor: an answer that is too inaccurate is no answer, a late one still is;
3. inside the memory objective, none reaches the accuracy minimum: the most accurate, as near to the floor as can be;
4. none inside the memory objective: the smallest.

From 2 on, ``ObjectivesNotMet``. The order makes the choice monotone in each objective: a tighter latency never gives a
slower variant, a higher accuracy minimum never a less accurate one, a tighter memory never a larger one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgefolio.decision.estimates.memory import MemoryBounds, mebibytes, needed_bytes
from edgefolio.decision.estimates.peers import Bar
from edgefolio.decision.estimates.prediction import (
    LARGEST_SENSIBLE,
    UTILIZATION_CAP,
    Conditions,
    Expectation,
    expected_latency,
)
from edgefolio.decision.types import MEMORY_PRESSURE, Fallback, Objectives, Prediction, VariantProfile


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Assessment of one variant: its profile and its prediction; of a split also what bars it, and its fallback.

    The memory of a split's ``profile`` is that of shard and fallback.
    """

    profile: VariantProfile
    prediction: Prediction
    within_memory_objective: bool
    bar: Bar | None = None
    fallback: Fallback | None = None

    @property
    def servable(self) -> bool:
        """Whether it may be served at all, whatever the objectives."""
        return self.can_be_ordered and self.bar is None

    @property
    def can_be_ordered(self) -> bool:
        """Whether somebody who asks for it by name gets it: a split as soon as it has a set of workers."""
        return (
            self.prediction.fits_memory
            and self.prediction.fits_memory_during_switch
            and not self.prediction.quarantined
            and (self.bar is None or self.bar.yields)
        )

    @property
    def meets_all(self) -> bool:
        """Whether all three objectives are met."""
        return self.within_memory_objective and self.prediction.meets_accuracy and self.prediction.meets_latency


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The variant that the tiers give, and whether it meets all objectives."""

    assessment: Assessment
    objectives_met: bool

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.assessment.profile.name


def latency_budget(objectives: Objectives) -> float | None:
    """The server's share of the latency objective, in milliseconds; ``None``: no objective."""
    asked = _finite(objectives.latency_p95_milliseconds)
    return None if asked is None else asked - network_milliseconds(objectives)


def network_milliseconds(objectives: Objectives) -> float:
    """The part of the latency objective that the way to the client takes."""
    return _finite(objectives.network_latency_milliseconds) or 0.0


def assess(
    profile: VariantProfile,
    *,
    conditions: Conditions,
    objectives: Objectives,
    margin_percent: float,
    bounds: MemoryBounds,
    quarantined: bool,
    measured: Expectation | None = None,
    accuracy_percent: float | None = None,
    bar: Bar | None = None,
    fallback: Fallback | None = None,
    parts: str = "",
) -> Assessment:
    """Assess one variant; ``measured`` (of the active variant) replaces the prediction.

    Of a split: ``accuracy_percent`` as served instead of the profile's, what bars it, its ``fallback``, and the
    ``parts`` of its memory in words.
    """
    expectation = measured or expected_latency(profile, conditions)
    budget = latency_budget(objectives)
    p95, utilization = expectation.p95_milliseconds, expectation.utilization
    allowed = None if budget is None else budget * (1 - margin_percent / 100)
    keeps_up = measured is not None or utilization is None or utilization <= UTILIZATION_CAP
    in_time = p95 is not None and (allowed is None or p95 <= allowed)
    minimum = _finite(objectives.min_accuracy_percent)
    accuracy = profile.accuracy_percent if accuracy_percent is None else accuracy_percent
    accurate = minimum is None or accuracy >= minimum
    needed = needed_bytes(profile)
    needs = f"needs {mebibytes(needed)}{parts}"
    small = objectives.max_memory_bytes is None or needed <= objectives.max_memory_bytes
    alone = bounds.fits_alone(profile) or profile.name in bounds.resident
    during = bounds.fits_during_switch(profile)
    faults: list[str] = [] if bar is None else [bar.clause]
    if not alone:
        faults.append(f"{needs}, the server has {mebibytes(bounds.alone_bytes)}")
    elif not during and bounds.is_too_large(profile):
        faults.append(f"{needs}, and the node reports {MEMORY_PRESSURE}")
    elif not during:
        left = f"{mebibytes(bounds.extra_bytes)} are left{bounds.extra_where}"
        faults.append(f"{needs} beside what is loaded, {left}")
    if not small:
        faults.append(f"{needs} of at most {mebibytes(objectives.max_memory_bytes)}")
    if not accurate:
        faults.append(f"accuracy {accuracy:.2f} % is below {minimum:.4g} %")
    if not keeps_up:
        busy = f"{100 * (utilization or 0):.3g} % of the time (at most {100 * UTILIZATION_CAP:g} %)"
        faults.append(f"it would be busy {busy}")
    elif not in_time and (p95 is not None or bar is None):
        faults.append(
            "it cannot keep up" if p95 is None else f"p95 {p95:.1f} ms is above {_allowed_text(budget, margin_percent)}"
        )
    if quarantined:
        faults.append("quarantined after failures")
    verdict = "; ".join(faults) or "fits"
    if fallback is not None and not fallback.is_in_time:
        verdict += f"; {fallback.clause}"
    return Assessment(
        profile=profile,
        prediction=Prediction(
            variant=profile.name,
            p95_milliseconds=p95,
            utilization=utilization,
            meets_latency=in_time and keeps_up,
            meets_accuracy=accurate,
            fits_memory=alone,
            fits_memory_during_switch=during,
            quarantined=quarantined,
            verdict=verdict,
            barred=None if bar is None else bar.reason,
        ),
        within_memory_objective=small,
        bar=bar,
        fallback=fallback,
    )


def choose(assessments: Sequence[Assessment]) -> Choice | None:
    """The variant to serve (see the module), or ``None`` if none may be served."""
    servable = [entry for entry in assessments if entry.servable]
    small = [entry for entry in servable if entry.within_memory_objective]
    accurate = [entry for entry in small if entry.prediction.meets_accuracy]
    good = [entry for entry in accurate if entry.prediction.meets_latency]
    tiers: tuple[tuple[list[Assessment], Callable[[Assessment], tuple[float, ...]]], ...] = (
        (good, lambda entry: (-entry.profile.rank, *speed(entry))),
        (accurate, speed),
        (small, lambda entry: (-entry.profile.accuracy_percent, -entry.profile.rank)),
        (servable, lambda entry: (needed_bytes(entry.profile), *speed(entry))),
    )
    for entries, order in tiers:
        if entries:
            return Choice(assessment=min(entries, key=order), objectives_met=entries is good)
    return None


def speed(entry: Assessment) -> tuple[float, ...]:
    """Sort key, fastest first: predicted latency, else (nothing keeps up) the profile's."""
    p95 = entry.prediction.p95_milliseconds
    return (math.inf if p95 is None else p95, entry.profile.p95_milliseconds, -entry.profile.rank)


def _finite(value: float | None) -> float | None:
    """``value`` clamped to a sensible range; ``None`` for NaN and infinities, which ask for nothing."""
    if value is None or not -math.inf < value < math.inf:
        return None
    return float(min(max(value, -LARGEST_SENSIBLE), LARGEST_SENSIBLE))


def _allowed_text(budget: float | None, margin_percent: float) -> str:
    if budget is None:
        return "what is asked"
    less = f" ({budget:.1f} ms less {margin_percent:g} %)" if margin_percent else ""
    return f"{budget * (1 - margin_percent / 100):.1f} ms{less}"
