"""Manifests of variants that nobody made, for tests that only need something to publish, read or serve."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from edgefolio.manifest import (
    Accuracy,
    DataDigests,
    Environment,
    LatencyProfile,
    Manifest,
    ParityProof,
    Preprocessing,
    Probe,
    Profile,
    Signature,
    Tensor,
    TensorSignature,
    Variant,
)

DIGEST = "0" * 64


def draft_latency(*, batch: int = 1, mean: float = 1.0, p95: float = 1.5) -> LatencyProfile:
    """The latency of one batch in milliseconds; its median is the mean."""
    return LatencyProfile(
        batch_size=batch, mean_milliseconds=mean, p50_milliseconds=mean, p95_milliseconds=p95, samples=200
    )


def draft_profile(
    *latencies: LatencyProfile, threads: int = 1, memory: int = 1, memory_peak: int | None = None
) -> Profile:
    """A profile on a machine that is called after its number of threads."""
    return Profile(
        environment=Environment(
            cpu_model=f"cpu-{threads}",
            logical_cpus=2,
            threads=threads,
            onnxruntime_version="1",
            platform="linux-x86_64",
        ),
        latencies=latencies or (draft_latency(),),
        load_milliseconds=100,
        memory_peak_bytes=memory if memory_peak is None else memory_peak,
        memory_steady_bytes=memory,
    )


def draft_variant(name: str, rank: int, content: bytes, *, percent: float = 90.0, **fields: Any) -> Variant:
    """A variant whose file holds ``content``; ``fields`` replace what is said of it."""
    accuracy = Accuracy(percent=percent, low_percent=percent - 1, high_percent=percent + 1, samples=1000)
    said: dict[str, Any] = {
        "name": name,
        "rank": rank,
        "file": f"{100 + rank}/model.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "parent": None,
        "method": "test",
        "opset": 17,
        "ir_version": 8,
        "parameters": 1,
        "macs": 1,
        "validation_accuracy": accuracy,
        "test_accuracy": accuracy,
        "parity": ParityProof(max_absolute_difference=0, max_absolute_logit=1, top1_agreement_percent=100, samples=256),
        "exactness": None,
        "profiles": (draft_profile(),),
        "probe": Probe(
            inputs=(Tensor(name="input", shape=(1, 1), values=(1.0,)),),
            outputs=(Tensor(name="output", shape=(1, 1), values=(1.0,)),),
            absolute_tolerance=0.1,
        ),
    }
    return Variant(**(said | fields))


def draft_manifest(variants: Sequence[Variant], *, model: str, **fields: Any) -> Manifest:
    """A manifest of ``variants``, least accurate first, as revision 1; ``fields`` replace what is said of all."""
    said: dict[str, Any] = {
        "model": model,
        "revision": 1,
        "created": "2026-01-01T00:00:00Z",
        "edgefolio_version": "0",
        "specification": {},
        "specification_sha256": DIGEST,
        "seed": 0,
        "source": "test",
        "data": DataDigests(
            training_uri="test",
            training_sha256=DIGEST,
            validation_sha256=DIGEST,
            test_sha256=DIGEST,
            training_samples=1,
            validation_samples=1,
            test_samples=1,
        ),
        "labels": ("a",),
        "preprocessing": Preprocessing(),
        "signature": Signature(
            inputs=(TensorSignature(name="input", datatype="FP32", shape=(1,)),),
            outputs=(TensorSignature(name="output", datatype="FP32", shape=(1,)),),
        ),
        "software": {},
        "request_batch_size": 1,
        "variants": tuple(variants),
    }
    return Manifest(**(said | fields))
