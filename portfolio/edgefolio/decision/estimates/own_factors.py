"""Estimator of the variants' own parts of the compute factor: one number for all is wrong where they differ.

    factor(variant) = factor(active) * own(variant) / own(active)

A node that slows convolutions more than copies, a server whose overhead weighs more in a small variant, int8 beside
float on a processor without the instructions: profiles of another machine cannot tell. A variant's own part is learned
where two variants are measured at the same time: when the standby is probed while the active variant serves. Until then
it is 1, as the profiles say. The two sides of a switch are seconds apart, and a neighbour that comes or goes in between
would be taken for a property of the variant.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgefolio.decision.estimates.compute_factor import bounded
from edgefolio.decision.types import OwnFactor, ProbeResult, State, VariantProfile

OWN_BOUNDS = (0.1, 10.0)
#: Weight of a probe, in logarithms.
_PROBE_WEIGHT = 0.5
#: A compute factor that differs from the smoothed one by more than this ratio is of another time.
_SAME_TIMES = 1.5
#: More variants than a revision has are forgotten, oldest first.
_REMEMBERED = 64


def own_factor(state: State, variant: str) -> float:
    """The own part of ``variant``."""
    return next((entry.factor for entry in state.own_factors if entry.variant == variant), 1.0)


def relative_factor(state: State, variant: str, active: str | None) -> float:
    """The factor by which the compute factor of ``variant`` differs from that of ``active``."""
    return 1.0 if active is None or variant == active else own_factor(state, variant) / own_factor(state, active)


def learned_from_probe(
    state: State,
    probe: ProbeResult | None,
    *,
    profile: VariantProfile | None,
    active: VariantProfile,
    elapsed: float,
    latest: float | None = None,
) -> State:
    """``state`` with what a ``probe`` of the standby says; each probe counts once.

    Both variants are asked in the same way, one after the other: back to back a small variant is up to a fifth faster
    than between the users' requests, whose caches others have used meanwhile. Without the time of the active one, as
    recorded before, the smoothed compute factor stands for it, unless ``latest``, the factor as last seen, is another:
    then a neighbour came or went.
    """
    if probe is None or profile is None or profile.name == active.name or not 0 <= probe.age_seconds < elapsed:
        return state
    if not 0 < probe.compute_milliseconds < math.inf:
        return state
    beside, of_active = probe.beside_milliseconds, state.compute_factor
    if beside is not None and 0 < beside < math.inf:
        of_active = beside / active.mean_milliseconds
    elif latest is not None and not 1 / _SAME_TIMES <= latest / state.compute_factor <= _SAME_TIMES:
        return state
    factor = probe.compute_milliseconds / profile.mean_milliseconds
    if not of_active > 0:
        return state
    return _towards(state, profile.name, own_factor(state, active.name) * factor / of_active, _PROBE_WEIGHT)


def _towards(state: State, variant: str, found: float, weight: float) -> State:
    if not 0 < found < math.inf:
        return state
    before = own_factor(state, variant)
    own = bounded(math.exp((1 - weight) * math.log(before) + weight * math.log(found)), OWN_BOUNDS)
    others = tuple(entry for entry in state.own_factors if entry.variant != variant)
    return replace(state, own_factors=(*others, OwnFactor(variant=variant, factor=own))[-_REMEMBERED:])
