"""Small drafts, and portfolios published from them."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
from edgefolio.repository import Publication

DIGEST = "0" * 64


def draft_manifest(contents: dict[str, bytes], *, model: str = "digits", created: str = "2026-01-01") -> Manifest:
    """A manifest for variants with these bytes, least accurate first."""
    environment = Environment(
        cpu_model="test", logical_cpus=1, threads=1, onnxruntime_version="0", platform="linux-x86_64"
    )
    latency = LatencyProfile(batch_size=1, mean_milliseconds=1, p50_milliseconds=1, p95_milliseconds=1.5, samples=20)
    accuracy = Accuracy.from_counts(correct=90, samples=100)
    variants = tuple(
        Variant(
            name=name,
            rank=rank,
            file=f"{100 + rank}/model.onnx",
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            parent=None,
            method="dense",
            opset=18,
            ir_version=8,
            parameters=1,
            macs=1,
            validation_accuracy=accuracy,
            test_accuracy=accuracy,
            parity=ParityProof(
                max_absolute_difference=0, max_absolute_logit=1, top1_agreement_percent=100, samples=256
            ),
            exactness=None,
            profiles=(
                Profile(
                    environment=environment,
                    latencies=(latency,),
                    load_milliseconds=1,
                    memory_peak_bytes=1,
                    memory_steady_bytes=1,
                ),
            ),
            probe=Probe(
                inputs=(Tensor(name="input", shape=(1, 1), values=(1.0,)),),
                outputs=(Tensor(name="output", shape=(1, 1), values=(1.0,)),),
                absolute_tolerance=0.1,
            ),
        )
        for rank, (name, content) in enumerate(contents.items(), start=1)
    )
    return Manifest(
        model=model,
        revision=1,
        created=created,
        edgefolio_version="0",
        specification={},
        specification_sha256=DIGEST,
        seed=0,
        source="test",
        data=DataDigests(
            training_uri="test",
            training_sha256=DIGEST,
            validation_sha256=DIGEST,
            test_sha256=DIGEST,
            training_samples=1,
            validation_samples=1,
            test_samples=1,
        ),
        labels=("a",),
        preprocessing=Preprocessing(),
        signature=Signature(
            inputs=(TensorSignature(name="input", datatype="FP32", shape=(1,)),),
            outputs=(TensorSignature(name="output", datatype="FP32", shape=(1,)),),
        ),
        software={},
        request_batch_size=1,
        variants=variants,
    )


def contents_of(text: str, *, size: int = 3000) -> dict[str, bytes]:
    """Bytes of two variants, by name, that depend on ``text``."""
    return {name: hashlib.sha256(f"{text} {name}".encode()).digest() * (size // 32 + 1) for name in ("small", "large")}


def publish_draft(uri: str, folder: Path, text: str = "one", *, model: str = "digits") -> Manifest:
    """Publish a revision whose bytes depend on ``text``; its files pass through ``folder``."""
    contents = contents_of(text)
    files = {name: folder / f"{text}-{name}.onnx" for name in contents}
    folder.mkdir(exist_ok=True)
    for name, path in files.items():
        path.write_bytes(contents[name])
    return Publication.open(uri).publish(draft_manifest(contents, model=model), files, history_limit=5).manifest
