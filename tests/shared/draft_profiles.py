"""Profiles of a class of processors that nobody measured."""

from __future__ import annotations

from typing import Any

from edgefolio.manifest import Manifest, PublishedManifest
from edgefolio.node_profile import MeasuredEnvironment, MeasuredLatency, MeasuredVariant, NodeProfile
from edgefolio.processor_class import Processor

EPYC = Processor(model="AMD EPYC 7763 64-Core Processor", flags=frozenset({"sse4_2", "avx", "fma", "avx2"}))
XEON = Processor(
    model="Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
    flags=frozenset({"sse4_2", "avx", "fma", "avx2", "avx512f", "avx512_vnni", "amx_int8"}),
)
PI = Processor(model="implementer 0x41 part 0xd08", flags=frozenset({"asimd"}))


def draft_node_profile(manifest: Manifest, node: Processor, *, times: float = 2.0, **fields: Any) -> NodeProfile:
    """A profile on ``node``, where everything takes ``times`` as long as the manifest says."""
    environment = MeasuredEnvironment(
        cpu_model=node.model,
        instruction_sets=node.instruction_sets,
        logical_cpus=4,
        threads=1,
        onnxruntime_version="1",
        platform="linux-x86_64",
    )
    said: dict[str, Any] = {
        "model": manifest.model,
        "revision": manifest.revision,
        "manifest_sha256": PublishedManifest.of(manifest).sha256,
        "class_name": environment.class_name,
        "created": "2026-01-01T00:00:00Z",
        "edgefolio_version": "0",
        "environment": environment,
        "variants": tuple(
            MeasuredVariant(
                name=variant.name,
                sha256=variant.sha256,
                latencies=tuple(
                    MeasuredLatency(
                        batch_size=entry.batch_size,
                        mean_milliseconds=entry.mean_milliseconds * times,
                        p50_milliseconds=entry.p50_milliseconds * times,
                        p95_milliseconds=entry.p95_milliseconds * times,
                        samples=entry.samples,
                    )
                    for entry in variant.profiles[0].latencies
                ),
                load_milliseconds=7,
                memory_peak_bytes=11,
                memory_steady_bytes=5,
            )
            for variant in manifest.variants
        ),
    }
    return NodeProfile(**(said | fields))
