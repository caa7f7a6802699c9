"""A portfolio of equally costly variants, each of which reveals itself in its answers.

Equal cost lets latencies before, during and after a switch be compared as they are.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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

MODEL = "switching"
INPUT, OUTPUT = "image", "logits"
STEP = 1000.0
SIZE, CHANNELS, LAYERS = 28, 24, 4
_DIGEST = "0" * 64


def images(samples: int = 1) -> NDArray[np.float32]:
    """A request."""
    return np.random.default_rng(0).random((samples, 1, SIZE, SIZE), dtype=np.float32)


def tag_of(outputs: NDArray[Any]) -> int:
    """Which variant computed ``outputs``: its rank."""
    return int(np.round(outputs[0, 0] / STEP))


def publish(directory: Path, *, variants: int) -> Manifest:
    """Publish the portfolio in ``directory``."""
    files, entries = {}, []
    for rank in range(1, variants + 1):
        raw = _model(rank)
        name = f"variant-{rank}"
        files[name] = directory.parent / f"{name}.onnx"
        files[name].write_bytes(raw)
        entries.append(_variant(name, rank, raw))
    manifest = Manifest(
        model=MODEL,
        revision=1,
        created="2026-01-01T00:00:00Z",
        edgefolio_version="0",
        specification={},
        specification_sha256=_DIGEST,
        seed=0,
        source="benchmark",
        data=DataDigests(
            training_uri="none",
            training_sha256=_DIGEST,
            validation_sha256=_DIGEST,
            test_sha256=_DIGEST,
            training_samples=1,
            validation_samples=1,
            test_samples=1,
        ),
        labels=("a", "b"),
        preprocessing=Preprocessing(),
        signature=Signature(
            inputs=(TensorSignature(name=INPUT, datatype="FP32", shape=(1, SIZE, SIZE)),),
            outputs=(TensorSignature(name=OUTPUT, datatype="FP32", shape=(2,)),),
        ),
        software={},
        request_batch_size=1,
        variants=tuple(entries),
    )
    return Publication.open(str(directory)).publish(manifest, files, history_limit=1).manifest


def _model(rank: int) -> bytes:
    generator = np.random.default_rng(rank)
    nodes, weights, current, channels = [], [], INPUT, 1
    for layer in range(LAYERS):
        kernel = generator.normal(size=(CHANNELS, channels, 3, 3)) / np.sqrt(9 * channels)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"kernel{layer}"))
        nodes.append(helper.make_node("Conv", [current, f"kernel{layer}"], [f"sum{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"sum{layer}"], [f"live{layer}"]))
        current, channels = f"live{layer}", CHANNELS
    nodes.append(helper.make_node("GlobalAveragePool", [current], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    weights.append(numpy_helper.from_array(generator.normal(size=(CHANNELS, 2)).astype(np.float32), "matrix"))
    weights.append(numpy_helper.from_array(np.array([STEP * rank, 0], np.float32), "bias"))
    nodes.append(helper.make_node("Gemm", ["flat", "matrix", "bias"], [OUTPUT]))
    graph = helper.make_graph(
        nodes,
        MODEL,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 2])],
        weights,
    )
    raw: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    return raw


def _variant(name: str, rank: int, raw: bytes) -> Variant:
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {INPUT: images()})
    accuracy = Accuracy(percent=90, low_percent=89, high_percent=91, samples=1000)
    latency = LatencyProfile(batch_size=1, mean_milliseconds=1, p50_milliseconds=1, p95_milliseconds=1, samples=100)
    environment = Environment(cpu_model="none", logical_cpus=1, threads=1, onnxruntime_version="none", platform="none")
    profile = Profile(
        environment=environment,
        latencies=(latency,),
        load_milliseconds=100,
        memory_peak_bytes=1,
        memory_steady_bytes=1,
    )
    return Variant(
        name=name,
        rank=rank,
        file=f"{100 + rank}/model.onnx",
        sha256=hashlib.sha256(raw).hexdigest(),
        size_bytes=len(raw),
        parent=None,
        method="random weights",
        opset=17,
        ir_version=8,
        parameters=1,
        macs=1,
        validation_accuracy=accuracy,
        test_accuracy=accuracy,
        parity=ParityProof(max_absolute_difference=0, max_absolute_logit=1, top1_agreement_percent=100, samples=1),
        exactness=None,
        profiles=(profile,),
        probe=Probe(inputs=(_tensor(INPUT, images()),), outputs=(_tensor(OUTPUT, outputs),), absolute_tolerance=0.05),
    )


def _tensor(name: str, values: NDArray[Any]) -> Tensor:
    return Tensor(name=name, shape=values.shape, values=tuple(float(value) for value in values.ravel()))
