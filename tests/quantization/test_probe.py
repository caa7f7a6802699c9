"""The probe of a quantized variant: as narrow as a float one's, so that a wrong weight does not hide in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from float_nets import agreement_with, depthwise_net, plain_net, samples
from onnx import numpy_helper

from edgefolio.manifest import Probe
from edgefolio_edge.models.probe import mismatch
from edgefolio_pruner.quantization import Twin, make_twin, outputs_of
from edgefolio_pruner.stages.probe import RELATIVE_TOLERANCE, make_int8_probe

LEVELS = onnxruntime.GraphOptimizationLevel


@pytest.fixture(scope="module", params=[plain_net, depthwise_net], ids=["plain", "depthwise"])
def twin(request: pytest.FixtureRequest) -> bytes:
    content = request.param()
    made = make_twin(
        content,
        calibration=samples(),
        accuracy_percent=agreement_with(content),
        max_loss_points=100.0,
        threads=1,
    )
    assert isinstance(made, Twin)
    return made.content


@pytest.fixture(scope="module")
def probe(twin: bytes, tmp_path_factory: pytest.TempPathFactory) -> Probe:
    path = tmp_path_factory.mktemp("probe") / "model.onnx"
    path.write_bytes(twin)
    return make_int8_probe(path, samples(64, seed=5), input_name="input", output_names=("output",), threads=1)


def inputs_of(probe: Probe) -> np.ndarray:
    (tensor,) = probe.inputs
    return np.array(tensor.values, dtype=np.float32).reshape(tensor.shape)


def problem_of(probe: Probe, content: bytes, *, level: LEVELS = LEVELS.ORT_ENABLE_ALL) -> str | None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return mismatch(probe, {"output": session.run(None, {"input": inputs_of(probe)})[0]})


@pytest.mark.parametrize("level", [LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_ALL])
def test_it_holds_whatever_kernels_compute_it(probe, twin, level):
    """Without optimization each layer is computed in float from dequantized values: no kernel for bytes runs."""
    assert problem_of(probe, twin, level=level) is None


def test_its_tolerance_is_that_of_a_float_probe(probe):
    largest = max(abs(value) for value in probe.outputs[0].values)
    assert probe.absolute_tolerance <= 2 * RELATIVE_TOLERANCE * largest
    assert probe.inputs[0].shape[0] == 4


def test_flipped_bits_in_weights_are_found(probe, twin):
    """In every layer; a single flip may meet a channel that the ReLU cuts off for all four samples."""
    model = onnx.load_model_from_string(twin)
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    weights = [tensor for tensor in weights if len(tensor.dims) > 1]
    assert len(weights) >= 4
    random = np.random.default_rng(0)
    found = []
    for tensor in weights:
        values = numpy_helper.to_array(tensor)
        caught = 0
        for _ in range(8):
            wrong = values.copy()
            wrong.reshape(-1).view(np.uint8)[random.integers(values.size)] ^= 0x40
            tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
            caught += problem_of(probe, model.SerializeToString()) is not None
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        assert caught >= 4, f"{tensor.name}: {caught} of 8 flipped weights were found"
        found.append(caught)
    assert sum(found) >= 0.8 * 8 * len(weights)


def test_a_corrupt_scale_is_found(probe, twin):
    model = onnx.load_model_from_string(twin)
    scales = [t for t in model.graph.initializer if t.name.endswith("_scale") and not t.name.startswith("bias")]
    assert scales
    for tensor in scales:
        value = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(value * np.float32(1.1)), tensor.name))
        assert problem_of(probe, model.SerializeToString()) is not None, tensor.name
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def test_its_samples_are_far_from_where_rounding_decides(probe, twin):
    inputs, answers = inputs_of(probe), None
    answers = outputs_of(twin, inputs, threads=1)
    random = np.random.default_rng(7)
    for _ in range(8):
        shaken = (inputs * (1 + 1e-5 * random.uniform(-1, 1, inputs.shape))).astype(np.float32)
        assert np.abs(outputs_of(twin, shaken, threads=1) - answers).max() <= probe.absolute_tolerance


def test_the_file_is_only_read(probe, twin, tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(twin)
    again = make_int8_probe(path, samples(64, seed=5), input_name="input", output_names=("output",), threads=1)
    assert again == probe
    assert path.read_bytes() == twin
