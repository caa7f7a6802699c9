"""The portfolio of the demonstration: the example, with an objective that fits this machine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import numpy.typing
import onnxruntime
import yaml

from demo.clients import FloatArray
from edgefolio.manifest import Manifest, Variant

#: The objective, as a multiple of the median latency of the most accurate variant when nothing disturbs this machine.
#: A fixed number of milliseconds would be trivial on one machine and out of reach on another.
OBJECTIVE_FACTOR = 2.5
#: How many different request batches the clients send.
REQUESTS = 4


def write_portfolio(example: Path, path: Path, *, repository: Path, latency_milliseconds: int | None) -> dict[str, Any]:
    """Write ``example`` to ``path`` with this repository and latency objective; return the document."""
    document: dict[str, Any] = yaml.safe_load(example.read_text())
    document["spec"]["repository"]["uri"] = str(repository)
    if latency_milliseconds is not None:
        document["spec"]["objectives"]["latencyP95Milliseconds"] = latency_milliseconds
    replacement = path.with_suffix(".new")
    replacement.write_text(yaml.safe_dump(document, sort_keys=False))
    replacement.replace(path)
    return document


def request_latency(variant: Variant, manifest: Manifest) -> float:
    """Profiled median of one request batch in milliseconds."""
    latency = variant.profiles[0].latency(manifest.request_batch_size)
    if latency is None:
        raise ValueError(f"variant {variant.name} has no profile at batch {manifest.request_batch_size}")
    return latency.p50_milliseconds


def objective_milliseconds(manifest: Manifest) -> int:
    """The latency objective of the demonstration on this machine."""
    return math.ceil(OBJECTIVE_FACTOR * request_latency(manifest.variants[-1], manifest))


def slowest_and_fastest(manifest: Manifest) -> tuple[Variant, Variant]:
    """By profiled latency of one request batch."""
    ordered = sorted(manifest.variants, key=lambda variant: request_latency(variant, manifest))
    return ordered[-1], ordered[0]


def write_requests(repository: Path, manifest: Manifest, path: Path) -> float:
    """Write request batches and what each version answers to ``path`` (npz).

    Returns the tolerance that tells versions apart: far above rounding, far below the distance of any two versions.
    Raises ValueError when two versions answer so alike that no client could tell them apart.
    """
    signature = manifest.signature.inputs[0]
    generator = numpy.random.default_rng(0)
    shape = (REQUESTS, manifest.request_batch_size, *signature.shape)
    inputs = generator.standard_normal(shape).astype(numpy.float32)
    answers: dict[str, FloatArray] = {}
    for variant in manifest.variants:
        session = onnxruntime.InferenceSession(repository / "models" / manifest.model / variant.file)
        outputs = [session.run([manifest.signature.outputs[0].name], {signature.name: batch})[0] for batch in inputs]
        answers[f"version_{manifest.version_of(variant)}"] = numpy.stack(outputs)
    every = list(answers.values())
    distances = [
        float(numpy.abs(first[request] - second[request]).max())
        for place, first in enumerate(every)
        for second in every[place + 1 :]
        for request in range(REQUESTS)
    ]
    tolerance = 1e-3 * max(1.0, max(float(numpy.abs(answer).max()) for answer in every))
    if distances and min(distances) <= 2 * tolerance:
        raise ValueError(f"two variants answer alike within {min(distances):.2g}; clients could not tell them apart")
    numpy.savez(path, inputs=inputs, **answers)
    return tolerance
