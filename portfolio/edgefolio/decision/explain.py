"""Explanation of the steady choice: the variant taken once no timer holds it back, and why not the others.

Under stated conditions (:func:`explain_choice`), or under those that an endpoint reports (:func:`explain_observed`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgefolio.decision.choice import Assessment, choose
from edgefolio.decision.context import RuleContext
from edgefolio.decision.core import context_of
from edgefolio.decision.estimates.prediction import is_usable
from edgefolio.decision.remedies import remedies
from edgefolio.decision.rules.measuring import with_measurement
from edgefolio.decision.rules.standby import standby_in_calm
from edgefolio.decision.state import is_time, sanitized
from edgefolio.decision.types import (
    Fallback,
    MemoryState,
    Objectives,
    Observation,
    Prediction,
    ServerState,
    Standby,
    State,
    VariantProfile,
    WorkerSet,
)
from edgefolio.specification.serving import Switching


@dataclass(frozen=True, kw_only=True)
class ExplainedSplit:
    """What makes up the time of a split: computing of the slowest worker and what travels, the mean of a request.

    ``network_milliseconds`` is ``None`` where the links are not known, ``fallback`` where none fits beside the shard.
    """

    compute_milliseconds: float
    network_milliseconds: float | None
    fallback: Fallback | None


@dataclass(frozen=True, kw_only=True)
class ExplainedVariant:
    """One variant: its profile, its prediction, and why it was chosen or not.

    ``remedies`` are all the changes needed for it to fit; empty where it fits.
    """

    profile: VariantProfile
    prediction: Prediction
    chosen: bool
    why: str
    remedies: tuple[str, ...] = ()
    #: ``None`` of a variant that one node serves by itself.
    split: ExplainedSplit | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The choice (``None``: nothing can be served), and every variant from the most accurate down.

    ``distrust`` says why the metrics are not believed at the moment: then nothing is decided on them, and the figures
    are those that were estimated last. ``state`` is what was used: factor, transport, switches, quarantines.
    """

    chosen: str | None
    objectives_met: bool
    variants: tuple[ExplainedVariant, ...]
    distrust: str | None
    state: State
    #: The variant that would stay resident beside the chosen one, or why none would.
    standby: Standby | None = None


def explain_choice(
    *,
    profiles: tuple[VariantProfile, ...],
    objectives: Objectives,
    switching: Switching,
    compute_factor: float = 1.0,
    arrival_rate: float = 0.0,
    transport_milliseconds: float = 0.0,
    memory_bytes: int | None = None,
    active: str | None = None,
    worker_set: WorkerSet | None = None,
) -> Explanation:
    """The steady choice for an endpoint that computes ``compute_factor`` times slower than the profiles say.

    ``arrival_rate`` in requests per second (Poisson arrivals); ``memory_bytes`` is what variants may use together; with
    an ``active`` variant, the margins are those of a switch from it and its memory is in use during the switch. Without
    a ``worker_set`` no split can be chosen.
    """
    resident = () if active is None else (active,)
    context = RuleContext(
        observation=Observation(
            active_variant=active,
            resident_variants=resident,
            server=ServerState.SERVING,
            memory=None
            if memory_bytes is None
            else MemoryState(
                limit_bytes=memory_bytes, working_set_bytes=None, node_available_bytes=None, age_seconds=0
            ),
            worker_set=worker_set,
        ),
        objectives=objectives,
        profiles=tuple(sorted((entry for entry in profiles if is_usable(entry)), key=lambda entry: -entry.rank)),
        switching=switching,
        state=sanitized(
            State(
                compute_factor=compute_factor, transport_milliseconds=transport_milliseconds, arrival_rate=arrival_rate
            ),
            now=0.0,
            switching=switching,
        ),
        now=0.0,
    )
    return _explained(context, None)


def explain_observed(
    *,
    observation: Observation,
    objectives: Objectives,
    profiles: tuple[VariantProfile, ...],
    switching: Switching,
    state: State,
    now: float,
) -> Explanation:
    """The steady choice for an endpoint as it reports itself; the arguments are those of the decision."""
    context = context_of(
        observation=observation,
        objectives=objectives,
        profiles=profiles,
        switching=switching,
        state=state,
        now=now if is_time(now) else 0.0,
    )
    problem = None
    if context.active is not None:
        problem, context = with_measurement(context)
    return _explained(context, None if problem is None else problem[1])


def _explained(context: RuleContext, distrust: str | None) -> Explanation:
    choice = choose(context.assessments)
    chosen = None if choice is None else choice.assessment
    return Explanation(
        chosen=None if choice is None else choice.name,
        objectives_met=choice is not None and choice.objectives_met,
        variants=tuple(
            ExplainedVariant(
                profile=entry.profile,
                prediction=entry.prediction,
                chosen=entry is chosen,
                why=_why(entry, chosen),
                remedies=remedies(context, entry),
                split=_split(context, entry),
            )
            for entry in sorted(context.assessments, key=lambda entry: -entry.profile.rank)
        ),
        distrust=distrust,
        state=context.state,
        standby=None if choice is None else _standby(context, choice.name),
    )


def _split(context: RuleContext, entry: Assessment) -> ExplainedSplit | None:
    if entry.profile.split is None:
        return None
    conditions = context.conditions_for(entry.profile)
    network = conditions.network_milliseconds
    return ExplainedSplit(
        compute_milliseconds=conditions.compute_factor * entry.profile.mean_milliseconds,
        network_milliseconds=network if math.isfinite(network) else None,
        fallback=entry.fallback,
    )


def _standby(context: RuleContext, chosen: str) -> Standby:
    """The standby in calm, once ``chosen`` serves."""
    resident = tuple(dict.fromkeys((*context.observation.resident_variants, chosen)))
    observation = replace(context.observation, active_variant=chosen, resident_variants=resident)
    return standby_in_calm(replace(context, observation=observation))


def _why(entry: Assessment, chosen: Assessment | None) -> str:
    if chosen is None or (entry is not chosen and not entry.meets_all) or not entry.servable:
        return entry.prediction.verdict
    if entry is chosen:
        if entry.meets_all and entry.fallback is not None and not entry.fallback.is_in_time:
            return f"the most accurate that fits; {entry.fallback.clause}"
        return "the most accurate that fits" if entry.meets_all else f"nearest to it: {entry.prediction.verdict}"
    return f"fits, but {chosen.profile.name} is more accurate"
