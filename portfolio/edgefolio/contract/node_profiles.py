"""Which profile an endpoint is decided with, from the statuses of its portfolio and its agent. Pure.

The operator orders the profile for the processor that the agent reports. It predicts with it once the agent says that
it has those bytes: the compute factor that an agent reports belongs to the profile that it was measured against. An
agent that reports no processor is decided for with the manifest's own profile, as before there were others.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgefolio.decision.profiles import Measured, ProfileChoice, choose_profile
from edgefolio.processor_class import RELEVANT_FLAGS, Processor
from edgefolio.shown_text import printable
from edgefolio.specification.conditions import truncated
from edgefolio.specification.endpoint import EndpointStatus, ProfileOrder
from edgefolio.specification.portfolio_status import ProcessorReport, ProfileStatus, RevisionStatus, VariantStatus

#: Four kinds of cores by their part numbers.
_LONGEST_MODEL = 120


def processor_report(model: str, flags: Iterable[str]) -> ProcessorReport:
    """A processor within the bounds of a status; the same for an agent and for a Job."""
    have = frozenset(flags)
    return ProcessorReport(
        model=printable(model)[:_LONGEST_MODEL],
        instruction_sets=tuple(name for name in RELEVANT_FLAGS if name in have),
    )


def profile_order(revision: RevisionStatus, status: EndpointStatus) -> ProfileOrder | None:
    """The profile to order; ``None`` for an agent, or a revision, of which no processor is known."""
    if status.processor is None or (revision.measured_on is None and not _measured(revision)):
        return None
    measured = {entry.class_name: entry for entry in _measured(revision)}
    choice = _choice(status.processor, revision.measured_on or ProcessorReport(model=""), tuple(measured.values()))
    found = measured.get(choice.measured.name)
    return ProfileOrder(
        name=None if found is None else found.class_name,
        digest=None if found is None else found.digest,
        evidence=truncated(choice.evidence),
    )


def variants_for(revision: RevisionStatus, status: EndpointStatus) -> tuple[VariantStatus, ...]:
    """The variants with the figures to predict with: of the profile that the agent has, else of the manifest."""
    held = next((entry for entry in _measured(revision) if entry.digest == status.profile_digest), None)
    if held is None:
        return revision.variants
    figures = {entry.name: entry for entry in held.variants}
    # Rank and accuracy are the manifest's.
    return tuple(
        variant
        if (found := figures.get(variant.name)) is None
        else found.model_copy(update={"rank": variant.rank, "accuracy_percent": variant.accuracy_percent})
        for variant in revision.variants
    )


def _measured(revision: RevisionStatus) -> tuple[ProfileStatus, ...]:
    return tuple(
        entry
        for entry in revision.profiles
        if entry.class_name is not None and entry.digest is not None and entry.processor is not None
    )


def _choice(node: ProcessorReport, made_on: ProcessorReport, others: tuple[ProfileStatus, ...]) -> ProfileChoice:
    candidates = [Measured(name=None, model=made_on.model, instruction_sets=made_on.instruction_sets)]
    candidates += [
        Measured(name=entry.class_name, model=entry.processor.model, instruction_sets=entry.processor.instruction_sets)
        for entry in others
        if entry.processor is not None
    ]
    processor = Processor(model=node.model, flags=frozenset(node.instruction_sets))
    return choose_profile(processor, candidates)
