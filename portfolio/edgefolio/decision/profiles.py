"""Inputs of the core: profiles from a manifest, objectives from the specification."""

from __future__ import annotations

from edgefolio.decision.types import Objectives, VariantProfile
from edgefolio.manifest import LatencyProfile, Manifest, Profile, Variant
from edgefolio.specification.base import bytes_of
from edgefolio.specification.objectives import ObjectivesSpecification


def profiles_from_manifest(manifest: Manifest, *, batch_size: int | None = None) -> tuple[VariantProfile, ...]:
    """The profile of each variant, by rank, at ``batch_size`` samples (default: the request batch).

    Only a variant's first profile counts: how this machine differs from that one is what the compute factor measures. A
    batch that was not profiled is scaled from the nearest one in proportion. The accuracy is that on the test part; the
    order (rank) comes from validation.
    """
    batch = batch_size or manifest.request_batch_size
    return tuple(_variant_profile(variant, batch=batch) for variant in manifest.variants)


def objectives_from_specification(specification: ObjectivesSpecification) -> Objectives:
    """The objectives as numbers and bytes, for the core."""
    latency, accuracy = specification.latency_p95_milliseconds, specification.min_accuracy_percent
    return Objectives(
        latency_p95_milliseconds=None if latency is None else float(latency),
        network_latency_milliseconds=float(specification.network_latency_milliseconds),
        min_accuracy_percent=None if accuracy is None else float(accuracy),
        max_memory_bytes=None if specification.max_memory is None else bytes_of(specification.max_memory),
    )


def _variant_profile(variant: Variant, *, batch: int) -> VariantProfile:
    profile = variant.profiles[0]
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
    )


def _nearest(profile: Profile, batch: int) -> LatencyProfile:
    return min(profile.latencies, key=lambda entry: max(entry.batch_size, batch) / min(entry.batch_size, batch))
