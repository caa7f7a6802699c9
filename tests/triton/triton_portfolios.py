"""Portfolios of small ONNX models whose first output value reveals which one computed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from draft_manifests import draft_latency, draft_manifest, draft_profile, draft_variant
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgefolio.manifest import Manifest, Probe, Signature, Tensor, TensorSignature
from edgefolio.repository import Publication

MODEL = "revealing"
SIZE = 12
CLASSES = 4
#: Output 0 is the variant's tag times this, plus something far smaller that depends on the input.
STEP = 1000.0


def revealing_model(tag: int, *, width: int = 8, layers: int = 2, size: int = SIZE, input_name: str = "image") -> bytes:
    """A small convolutional net; ``width``, ``layers`` and ``size`` make it slower."""
    generator = np.random.default_rng(tag)
    nodes, weights, current, channels = [], [], input_name, 1
    for layer in range(layers):
        kernel = generator.normal(size=(width, channels, 3, 3)) / np.sqrt(9 * channels)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"kernel{layer}"))
        nodes.append(helper.make_node("Conv", [current, f"kernel{layer}"], [f"sum{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"sum{layer}"], [f"live{layer}"]))
        current, channels = f"live{layer}", width
    nodes.append(helper.make_node("GlobalAveragePool", [current], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    bias = np.zeros(CLASSES, np.float32)
    bias[0] = STEP * tag
    weights.append(numpy_helper.from_array(generator.normal(size=(width, CLASSES)).astype(np.float32), "matrix"))
    weights.append(numpy_helper.from_array(bias, "bias"))
    nodes.append(helper.make_node("Gemm", ["flat", "matrix", "bias"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "revealing",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", 1, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    raw: bytes = model.SerializeToString()
    return raw


def revealed_tag(outputs: NDArray[Any]) -> int:
    """The tag of the variant that computed ``outputs``."""
    tags = np.unique(np.round(outputs[:, 0] / STEP).astype(int))
    assert len(tags) == 1, tags
    return int(tags[0])


def images(samples: int = 1, *, seed: int = 0, size: int = SIZE) -> NDArray[np.float32]:
    """Inputs of the models."""
    return np.random.default_rng(seed).random((samples, 1, size, size), dtype=np.float32)


def _tensor(name: str, values: NDArray[Any]) -> Tensor:
    return Tensor(name=name, shape=values.shape, values=tuple(float(value) for value in values.ravel()))


def _probe(raw: bytes, *, size: int) -> Probe:
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    inputs = images(2, seed=7, size=size)
    (outputs,) = session.run(None, {"image": inputs})
    return Probe(inputs=(_tensor("image", inputs),), outputs=(_tensor("logits", outputs),), absolute_tolerance=0.05)


def draft(
    models: Sequence[bytes],
    *,
    milliseconds: Sequence[float] | None = None,
    probes: Mapping[int, Probe] | None = None,
    accuracies: Sequence[float] | None = None,
    model: str = MODEL,
    size: int = SIZE,
) -> Manifest:
    """A manifest of ``models``, least accurate first; ``probes`` replaces the true probe of a rank."""
    variants = []
    for rank, raw in enumerate(models, start=1):
        time = (milliseconds or [float(rank) for rank in range(1, len(models) + 1)])[rank - 1]
        percent = (accuracies or [90.0 + rank for rank in range(1, len(models) + 1)])[rank - 1]
        variants.append(
            draft_variant(
                f"variant-{rank}",
                rank,
                raw,
                percent=percent,
                profiles=(draft_profile(draft_latency(mean=time, p95=1.2 * time), memory=rank << 20),),
                probe=(probes or {}).get(rank) or _probe(raw, size=size),
            )
        )
    return draft_manifest(
        variants,
        model=model,
        labels=tuple(str(label) for label in range(CLASSES)),
        signature=Signature(
            inputs=(TensorSignature(name="image", datatype="FP32", shape=(1, size, size)),),
            outputs=(TensorSignature(name="logits", datatype="FP32", shape=(CLASSES,)),),
            max_batch_size=64,
        ),
    )


def publish(directory: Path, models: Sequence[bytes], **options: Any) -> Manifest:
    """Publish ``models`` as a new revision in ``directory`` and return its manifest."""
    manifest = draft(models, **options)
    scratch = directory.parent / f".{directory.name}-files"
    scratch.mkdir(parents=True, exist_ok=True)
    files = {}
    for variant, raw in zip(manifest.variants, models, strict=True):
        files[variant.name] = scratch / f"{variant.sha256}.onnx"
        files[variant.name].write_bytes(raw)
    return Publication.open(str(directory)).publish(manifest, files, history_limit=5).manifest
