"""Inputs of the core: profiles from a manifest or of a class of processors, objectives from the specification."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from edgefolio.decision.types import Objectives, SplitProfile, State, VariantProfile
from edgefolio.manifest import LatencyProfile, Manifest, Profile, Variant
from edgefolio.node_profile import NodeProfile
from edgefolio.processor_class import INT8_FLAGS, RELEVANT_FLAGS, Processor, class_of
from edgefolio.records.split_member import SplitMember, SplitShard
from edgefolio.shown_text import printable
from edgefolio.specification.objectives import ObjectivesSpecification
from edgefolio.specification.validation.base import bytes_of

#: Bounds of a compute factor that was rescaled, as of one that was measured.
_FACTOR_BOUNDS = (0.02, 1000.0)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Where a profile was measured: ``name`` is the class of a profile of its own, ``None`` for the manifest's."""

    name: str | None
    model: str
    instruction_sets: tuple[str, ...]

    @property
    def class_name(self) -> str:
        """The class of its processor."""
        return class_of(self.model, self.instruction_sets)

    @classmethod
    def of(cls, profile: NodeProfile) -> Measured:
        """Where a profile of its own was measured."""
        environment = profile.environment
        return cls(name=profile.class_name, model=environment.cpu_model, instruction_sets=environment.instruction_sets)

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Measured:
        """Where the manifest's own profiles were measured."""
        environment = manifest.variants[0].profiles[0].environment
        return cls(name=None, model=environment.cpu_model, instruction_sets=environment.instruction_sets)


@dataclass(frozen=True, kw_only=True)
class ProfileChoice:
    """The profile that a node's decisions rest on, and why.

    ``is_own``: it was measured on the node's own class of processors. ``evidence`` is one sentence for people.
    """

    measured: Measured
    is_own: bool
    evidence: str


def choose_profile(
    node: Processor | None, candidates: Iterable[Measured], *, int8: Iterable[str] | None = None
) -> ProfileChoice:
    """The profile for a ``node`` (``None``: its processor is not known) among ``candidates``, the manifest's first.

    That of the node's own class; else the nearest: of the same architecture, with the fewest instruction sets for
    8-bit integers that only one of the two has, then the fewest others, then the same name. The compute factor scales
    it by one number for all variants: what the node lacks for int8 it cannot know, so the evidence says it. ``int8``
    names the variants that it concerns (``None``: not known here).
    """
    known = tuple(candidates)
    if node is None:
        return ProfileChoice(
            measured=known[0],
            is_own=False,
            evidence=f"{_shown(known[0])}, scaled by the compute factor: the node's processor is not known.",
        )
    own = next((entry for entry in known if entry.class_name == node.class_name), None)
    if own is not None:
        return ProfileChoice(measured=own, is_own=True, evidence=f"{_shown(own)}, the node's own class of processors.")
    nearest = min(known, key=lambda entry: _distance(node, entry))
    concerned = "int8 variants" if int8 is None else _some(tuple(int8))
    have, had = frozenset(node.instruction_sets), frozenset(nearest.instruction_sets)
    evidence = f"{_shown(nearest)}, scaled by the compute factor: none was measured on {_text(node.model)}."
    if _processor(nearest).is_arm != node.is_arm:
        evidence += f" That is another architecture: {concerned or 'variants'} may be much slower here than predicted."
    elif lacking := _listed(had - have):
        concerns_int8 = concerned and (had - have) & INT8_FLAGS
        slow = f"{concerned} may be much slower" if concerns_int8 else "variants may be slower"
        evidence += f" This node lacks {lacking}, which that machine has: {slow} here than predicted."
    elif concerned and (more := _listed((have - had) & INT8_FLAGS)):
        evidence += f" This node has {more}, which that machine lacks: {concerned} may be faster here than predicted."
    return ProfileChoice(measured=nearest, is_own=False, evidence=evidence)


def int8_variants(manifest: Manifest) -> tuple[str, ...]:
    """Names of the variants that multiply 8-bit integers."""
    return tuple(variant.name for variant in manifest.single_node if variant.precision == "Int8")


def stated(measured: Measured) -> ProfileChoice:
    """The choice of a profile that somebody named."""
    return ProfileChoice(measured=measured, is_own=False, evidence=f"{_shown(measured)}, as asked for.")


def profiles_from_manifest(
    manifest: Manifest,
    *,
    batch_size: int | None = None,
    measured: NodeProfile | None = None,
    with_splits: bool = False,
) -> tuple[VariantProfile, ...]:
    """The profile of each variant of one server, by rank, at ``batch_size`` samples (default: the request batch).

    Costs are those of ``measured``, a profile of this very manifest, else those of a variant's first profile; how a
    machine differs from the profile's is what the compute factor measures. A batch that was not profiled is scaled from
    the nearest one in proportion. The accuracy is that on the test part; the order (rank) comes from validation.
    Splits are left out unless asked for: several nodes serve them together. No node measures one, so its shards are
    taken to differ from the manifest's figures as the other variants do, in the geometric mean.
    """
    batch = batch_size or manifest.request_batch_size
    of_node: Mapping[str, Profile] = {} if measured is None else measured.profiles()
    found = tuple(
        _variant_profile(variant, of_node.get(variant.name, variant.profiles[0]), batch=batch)
        for variant in (manifest.variants if with_splits else manifest.single_node)
    )
    ratio = _ratio_of_class(manifest, found, batch=batch) if with_splits and of_node else 1.0
    return tuple(entry if entry.split is None else _slower(entry, ratio) for entry in found)


def rescaled(
    state: State, *, before: Iterable[VariantProfile], after: Iterable[VariantProfile], active: str | None
) -> State:
    """``state`` once the profiles are replaced: the compute factor speaks of the profile that it was measured against.

    What the node takes stays; the factor changes as the profile of the ``active`` variant does. Without one the factor
    is measured anew, and so are the variants' own parts, which speak of the profiles that are replaced.
    """
    state = replace(state, own_factors=())
    old = next((entry.mean_milliseconds for entry in before if entry.name == active), None)
    new = next((entry.mean_milliseconds for entry in after if entry.name == active), None)
    if old is None or new is None or old <= 0 or new <= 0:
        return replace(state, compute_factor=1.0, factor_updated_at=None)
    low, high = _FACTOR_BOUNDS
    return replace(state, compute_factor=min(high, max(low, state.compute_factor * old / new)))


def objectives_from_specification(specification: ObjectivesSpecification) -> Objectives:
    """The objectives as numbers and bytes, for the core."""
    latency, accuracy = specification.latency_p95_milliseconds, specification.min_accuracy_percent
    return Objectives(
        latency_p95_milliseconds=None if latency is None else float(latency),
        network_latency_milliseconds=float(specification.network_latency_milliseconds),
        min_accuracy_percent=None if accuracy is None else float(accuracy),
        max_memory_bytes=None if specification.max_memory is None else bytes_of(specification.max_memory),
    )


def _variant_profile(variant: Variant, profile: Profile, *, batch: int) -> VariantProfile:
    latency = _nearest(profile, batch)
    scale = batch / latency.batch_size
    return VariantProfile(
        name=variant.name,
        rank=variant.rank,
        accuracy_percent=variant.test_accuracy.percent,
        mean_milliseconds=latency.mean_milliseconds * scale,
        p95_milliseconds=latency.p95_milliseconds * scale,
        load_milliseconds=profile.load_milliseconds,
        memory_peak_bytes=profile.memory_peak_bytes,
        memory_steady_bytes=profile.memory_steady_bytes,
        split=None if variant.split is None else _split_profile(variant.split, batch=batch),
    )


def _split_profile(split: SplitMember, *, batch: int) -> SplitProfile:
    def mean(shard: SplitShard) -> float:
        latency = _nearest(shard.profiles[0], batch)
        return latency.mean_milliseconds * batch / latency.batch_size

    return SplitProfile(
        workers=split.workers,
        exchanges=split.synchronisations,
        bytes_into_busiest=split.bytes_into_busiest * batch,
        input_bytes=split.input_bytes * batch,
        shard_milliseconds=tuple(mean(shard) for shard in split.shards),
    )


def _ratio_of_class(manifest: Manifest, found: Iterable[VariantProfile], *, batch: int) -> float:
    """How many times slower the variants of one node are in ``found`` than the manifest says."""
    said = {variant.name: _variant_profile(variant, variant.profiles[0], batch=batch) for variant in manifest.variants}
    ratios = [
        math.log(entry.mean_milliseconds / said[entry.name].mean_milliseconds)
        for entry in found
        if entry.split is None and entry.mean_milliseconds > 0 and said[entry.name].mean_milliseconds > 0
    ]
    return math.exp(sum(ratios) / len(ratios)) if ratios else 1.0


def _slower(profile: VariantProfile, ratio: float) -> VariantProfile:
    split = profile.split
    assert split is not None
    return replace(
        profile,
        mean_milliseconds=profile.mean_milliseconds * ratio,
        p95_milliseconds=profile.p95_milliseconds * ratio,
        split=replace(split, shard_milliseconds=tuple(value * ratio for value in split.shard_milliseconds)),
    )


def _nearest(profile: Profile, batch: int) -> LatencyProfile:
    return min(profile.latencies, key=lambda entry: max(entry.batch_size, batch) / min(entry.batch_size, batch))


def _distance(node: Processor, entry: Measured) -> tuple[bool, int, int, bool]:
    different = (frozenset(node.instruction_sets) ^ frozenset(entry.instruction_sets)) & frozenset(RELEVANT_FLAGS)
    return (
        _processor(entry).is_arm != node.is_arm,
        len(different & INT8_FLAGS),
        len(different),
        entry.model != node.model,
    )


def _processor(measured: Measured) -> Processor:
    return Processor(model=measured.model, flags=frozenset(measured.instruction_sets))


def _shown(measured: Measured) -> str:
    where = "The profile in the manifest" if measured.name is None else f"Profile {measured.name}"
    return f"{where}, measured on {_text(measured.model)}"


def _text(model: str) -> str:
    return printable(model)[:80] or "an unnamed processor"


def _some(names: tuple[str, ...]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")


def _listed(flags: frozenset[str]) -> str:
    return ", ".join(name for name in RELEVANT_FLAGS if name in flags)
