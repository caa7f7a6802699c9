"""A quantized variant beside its float parent, on a real Triton."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from triton_load import Clients, failed, wrong
from triton_portfolios import MODEL, draft, images, revealed_tag, revealing_model
from triton_site import Site, open_site

from edgefolio.manifest import Manifest, QuantizationRecord
from edgefolio.repository import Publication, Repository
from edgefolio_edge.models.repository_audit import verify_repository

INT8, FLOAT, CORRUPT = 1, 2, 3


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._left = iter([{"image": images(1, seed=seed)} for seed in range(32)])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._left, None)


def quantized(raw: bytes, folder: Path) -> bytes:
    """``raw`` quantized as the pruner does it: bytes in the standard domain, per channel, weights of 7 bits.

    The layer that reveals the tag stays float: 256 steps are too few for it.
    """
    source, target = folder / "float.onnx", folder / "int8.onnx"
    source.write_bytes(raw)
    quantize_static(
        source,
        target,
        _Samples(),
        op_types_to_quantize=["Conv", "Relu", "GlobalAveragePool"],
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    model = onnx.load(target)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    del model.opset_import[1:]
    model.ir_version = 8
    return bytes(model.SerializeToString())


def with_a_flipped_bit(raw: bytes) -> bytes:
    """``raw`` with the highest bit of one of the first layer's weights flipped."""
    model = onnx.load_model_from_string(raw)
    (weights,) = [tensor for tensor in model.graph.initializer if tensor.name == "kernel0_quantized"]
    values = numpy_helper.to_array(weights).copy()
    values.reshape(-1).view(np.uint8)[4] ^= 0x40
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    return bytes(model.SerializeToString())


def publish_int8(repository: Path, folder: Path) -> Manifest:
    """Publish the quantized model, its float parent, and the quantized one again with a flipped bit."""
    parent = revealing_model(2, layers=1)
    twin = quantized(revealing_model(1, layers=1), folder)
    corrupt = with_a_flipped_bit(twin)
    probe = draft([twin]).variants[0].probe
    steady = probe.model_copy(update={"absolute_tolerance": 0.01})
    manifest = draft([twin, parent, corrupt], probes={INT8: steady, CORRUPT: steady})
    record = QuantizationRecord(
        float_parent="variant-2",
        calibration_samples=32,
        accuracy_loss_points=0.1,
        max_accuracy_loss_points=0.3,
        int8_layers=2,
    )
    said = {"precision": "Int8", "quantization": record, "parent": "variant-2"}
    variants = tuple(
        variant.model_copy(update=said if variant.rank in (INT8, CORRUPT) else {}) for variant in manifest.variants
    )
    files = {}
    for variant, raw in zip(variants, (twin, parent, corrupt), strict=True):
        files[variant.name] = folder / f"{variant.name}.onnx"
        files[variant.name].write_bytes(raw)
    drafted = manifest.model_copy(update={"variants": variants})
    return Publication.open(str(repository)).publish(drafted, files, history_limit=5).manifest


@pytest.fixture(scope="module")
def int8_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published") / "portfolios"


@pytest.fixture(scope="module")
def int8_site(tmp_path_factory: pytest.TempPathFactory, int8_repository: Path) -> Iterator[Site]:
    manifest = publish_int8(int8_repository, tmp_path_factory.mktemp("made"))
    yield from open_site(tmp_path_factory.mktemp("site"), manifest, int8_repository)


def answer(site: Site) -> NDArray[Any]:
    client = triton_grpc.InferenceServerClient(site.server.grpc_endpoint)
    tensor = triton_grpc.InferInput("image", [2, 1, 12, 12], "FP32")
    tensor.set_data_from_numpy(images(2))
    found = client.infer(MODEL, [tensor]).as_numpy("logits")
    client.close()
    assert found is not None
    return found


def test_it_is_served_and_switched_under_load(int8_site: Site) -> None:
    int8_site.serve(FLOAT)
    order = cycle([INT8, FLOAT])
    with Clients(int8_site.server.grpc_endpoint, int8_site.server.http_endpoint, model=MODEL) as clients:
        for number in range(4):
            clients.wait_for(100 * (number + 1))
            rank = next(order)
            int8_site.serve(rank)
            assert int8_site.switcher.canary(int8_site.placement(rank)) is None
            assert revealed_tag(answer(int8_site)) == rank
    requests = clients.requests()
    assert failed(requests) == []
    assert wrong(requests, int8_site.manifest, {"variant-1": INT8, "variant-2": FLOAT}) == []


def test_one_with_a_corrupt_weight_is_never_served(int8_site: Site) -> None:
    int8_site.serve(INT8)
    outcome = int8_site.switcher.switch(int8_site.placement(CORRUPT))
    assert not outcome.succeeded
    assert "probe" in str(outcome.cause)
    assert revealed_tag(answer(int8_site)) == INT8


def test_verify_names_the_corrupt_one_alone(int8_site: Site, int8_repository: Path) -> None:
    (revision,) = verify_repository(Repository.open(str(int8_repository))).revisions
    assert revision.variants == ("variant-1", "variant-2")
    (finding,) = revision.findings
    assert "variant-3: its answers to the probe are wrong" in finding.problem
