"""Remedies: what would have to change for a variant to be taken, for each verdict of :mod:`.choice`."""

from __future__ import annotations

import math
from dataclasses import replace

from edgefolio.decision.choice import Assessment, latency_budget, network_milliseconds
from edgefolio.decision.context import RuleContext
from edgefolio.decision.estimates.memory import memory_bounds, needed_bytes
from edgefolio.decision.estimates.prediction import UTILIZATION_CAP, Conditions, expected_latency
from edgefolio.decision.types import MEMORY_PRESSURE, Reason

#: A node that computes this much faster than the machine of the profile is no practical remedy.
_LEAST_FACTOR = 0.02
_HALVINGS = 40


def remedies(context: RuleContext, entry: Assessment) -> tuple[str, ...]:
    """One clause for each bound that keeps ``entry`` out, all of which are needed; none if it fits."""
    found = [*_peers(entry), *_memory(context, entry)]
    prediction, minimum = entry.prediction, context.objectives.min_accuracy_percent
    if not prediction.meets_accuracy and minimum is not None:
        found.append(f"minAccuracyPercent of at most {_floored(entry.profile.accuracy_percent):g}")
    if not prediction.meets_latency and (entry.bar is None or prediction.p95_milliseconds is not None):
        found.append(_latency(context, entry))
    quarantine = next((one for one in context.state.quarantined if one.variant == entry.profile.name), None)
    if prediction.quarantined and quarantine is not None:
        found.append(f"the end of its quarantine in {quarantine.until - context.now:.0f} s")
    return tuple(found)


def _peers(entry: Assessment) -> list[str]:
    if entry.bar is None:
        return []
    if entry.bar.reason is Reason.PEERS_NOT_READY:
        return ["a set of workers that is complete, linked and measured"]
    return ["a fallback beside its shard that keeps the objectives when a peer is lost"]


def _memory(context: RuleContext, entry: Assessment) -> list[str]:
    bounds = memory_bounds(
        context.observation, context.loaded, headroom_percent=float(context.switching.memory_headroom_percent)
    )
    needed, found = needed_bytes(entry.profile), []
    if not entry.prediction.fits_memory and bounds.alone_bytes is not None:
        found.append(f"{_at_least(needed - bounds.alone_bytes)} more memory for the server")
    elif not entry.prediction.fits_memory_during_switch and bounds.is_too_large(entry.profile):
        found.append(f"the end of the node's {MEMORY_PRESSURE}")
    elif not entry.prediction.fits_memory_during_switch and bounds.extra_bytes is not None:
        found.append(f"{_at_least(needed - bounds.extra_bytes)} more memory while both are loaded")
    if not entry.within_memory_objective:
        found.append(f"maxMemory of at least {_at_least(needed)}")
    return found


def _latency(context: RuleContext, entry: Assessment) -> str:
    budget, margin = latency_budget(context.objectives), context.margin_percent(entry.profile)
    is_active = context.is_active(entry.profile)
    allowed = math.inf if budget is None else budget * (1 - margin / 100)
    p95, utilization = entry.prediction.p95_milliseconds, entry.prediction.utilization
    ways = []
    crowded = not is_active and utilization is not None and utilization > UTILIZATION_CAP
    if not crowded and p95 is not None and margin < 100:
        asked = math.ceil(p95 / (1 - margin / 100) + network_milliseconds(context.objectives))
        ways.append(f"latencyP95Milliseconds of at least {asked}")
    conditions = context.conditions_for(entry.profile)
    factor = _largest_factor(entry, conditions, allowed)
    if factor is not None and not is_active:
        ways.append(f"compute at most {_floored(factor):g}x the profile's (now {conditions.compute_factor:.2f}x)")
    if crowded and conditions.arrival_rate is not None and utilization is not None:
        ways.append(f"at most {_floored(conditions.arrival_rate * UTILIZATION_CAP / utilization):g} requests/s")
    return " or ".join(ways) or "a faster node"


def _largest_factor(entry: Assessment, conditions: Conditions, allowed: float) -> float | None:
    """The largest compute factor at which the variant is fast enough; ``None`` if no sensible one is."""

    def fits(factor: float) -> bool:
        found = expected_latency(entry.profile, replace(conditions, compute_factor=factor))
        keeps_up = found.utilization is None or found.utilization <= UTILIZATION_CAP
        return keeps_up and found.p95_milliseconds is not None and found.p95_milliseconds <= allowed

    low, high = _LEAST_FACTOR, conditions.compute_factor
    if not fits(low) or fits(high):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _floored(value: float) -> float:
    """``value`` rounded down to two decimals: a stated limit must suffice."""
    return math.floor(value * 100) / 100


def _at_least(amount: float) -> str:
    return f"{math.ceil(amount / 2**20)}Mi"
