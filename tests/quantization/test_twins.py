"""Quantized twins: what their files are, which layers stay float, and who has none."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from float_nets import CLASSES, Net, agreement_with, depthwise_net, plain_net, samples
from onnx import numpy_helper

from edgefolio.errors import UserError
from edgefolio.untrusted.model_file import check_onnx
from edgefolio_pruner.quantization import Refusal, Twin, make_twin, outputs_of, require_calibration
from edgefolio_pruner.quantization.sensitivity import fewest_float_layers, residual

NETS = {"plain": plain_net, "depthwise": depthwise_net}


def twin_of(content: bytes, *, bound: float = 10.0, calibration: np.ndarray | None = None) -> Twin | Refusal:
    return make_twin(
        content,
        calibration=samples() if calibration is None else calibration,
        accuracy_percent=agreement_with(content),
        max_loss_points=bound,
        threads=1,
    )


def made(content: bytes, **options: object) -> Twin:
    twin = twin_of(content, **options)
    assert isinstance(twin, Twin), twin
    return twin


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("seed", range(3))
def test_a_twin_is_a_standard_file_of_bytes_that_answers_nearly_alike(net, seed):
    content = net(seed)
    twin = made(content, bound=100.0)
    summary = check_onnx(io.BytesIO(twin.content), size=len(twin.content), location="twin")
    assert (summary.opset, summary.ir_version) == (18, 8)
    parent, model = onnx.load_model_from_string(content), onnx.load_model_from_string(twin.content)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["input"]
    assert model.graph.output[0].type == parent.graph.output[0].type
    largest_float = max(np.prod(t.dims) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    assert largest_float <= 24  # the scales of the widest layer
    assert twin.float_layers == ()
    held_out = samples(64, seed=2)
    assert residual(outputs_of(twin.content, held_out, threads=1), outputs_of(content, held_out, threads=1)) < 0.05


def test_weights_have_seven_bits_and_answers_stay_float():
    """Sums of two products of 8 bits saturate on processors without VNNI; 256 steps over all logits are coarse."""
    twin = made(plain_net())
    graph = onnx.load_model_from_string(twin.content).graph
    weights = [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert max(int(np.abs(array.astype(int)).max()) for array in weights) <= 64
    assert [node.op_type for node in graph.node if "output" in node.output] == ["Gemm"]


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_equal_inputs_give_equal_bytes_in_another_process(net, tmp_path):
    content = net()
    (tmp_path / "model.onnx").write_bytes(content)
    script = (
        "import sys, pathlib, float_nets; from edgefolio_pruner.quantization import make_twin\n"
        "content = pathlib.Path('model.onnx').read_bytes()\n"
        "twin = make_twin(content, calibration=float_nets.samples(), max_loss_points=10.0, threads=1,"
        " accuracy_percent=float_nets.agreement_with(content))\n"
        "pathlib.Path(sys.argv[1]).write_bytes(twin.content)"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)}
        subprocess.run([sys.executable, "-c", script, seed], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes() == made(content).content


def net_with_an_outlier() -> bytes:
    """The second convolution makes one channel 10,000 times larger than the others; the third one ignores it."""
    model = onnx.load_model_from_string(
        Net(3).conv(8).operator("Relu").conv(8).operator("Relu").conv(8).operator("Relu").classifier().content()
    )
    convolutions = {node.name: node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    for name, index, factor in (("conv2", np.s_[0], 1e4), ("conv4", np.s_[:, 0], 0.0)):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == convolutions[name])
        values = numpy_helper.to_array(tensor).copy()
        values[index] *= factor
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return bytes(model.SerializeToString())


def test_layers_that_cost_accuracy_stay_float_and_are_named():
    content = net_with_an_outlier()
    loose, strict = made(content, bound=100.0), made(content, bound=10.0)
    assert strict.loss_points <= 10 < loose.loss_points
    assert sorted(layer.name for layer in strict.float_layers) == ["conv2", "conv4"]
    assert all(layer.residual > 0.1 for layer in strict.float_layers)
    assert set(strict.int8_layers) == set(loose.int8_layers) - {"conv2", "conv4"}


def test_as_few_layers_as_possible_stay_float():
    ranked = [f"layer{number}" for number in range(11)]
    for needed in range(1, 12):
        assert fewest_float_layers(ranked, lambda kept, needed=needed: len(kept) >= needed) == tuple(ranked[:needed])
    assert fewest_float_layers(ranked, lambda kept: False) is None


def test_a_bound_that_cannot_be_met_is_a_refusal_with_figures():
    content = plain_net()
    twin = make_twin(
        content,
        calibration=samples(),
        accuracy_percent=lambda candidate: 90.0 if candidate == content else 80.0,
        max_loss_points=0.5,
        threads=1,
    )
    assert twin == Refusal(
        "quantized it loses 10.00 points, and 10.00 with its most sensitive layers float; "
        "methods.quantization.maxAccuracyLossPoints allows 0.5"
    )


def test_a_model_without_a_layer_that_the_quantizer_knows_has_no_twin():
    content = Net(0).operator("Softplus").operator("GlobalAveragePool").operator("Flatten").content(classes=1)
    assert twin_of(content) == Refusal("it has no layer that the quantizer knows")


def test_operators_that_the_quantizer_does_not_know_stay_float():
    content = Net(0).conv(8).operator("Softplus").conv(8).operator("HardSwish").classifier().content()
    kept = [node.op_type for node in onnx.load_model_from_string(made(content).content).graph.node]
    assert {"Softplus", "HardSwish", "QuantizeLinear"} <= set(kept)


def test_a_form_that_the_runtime_cannot_run_is_a_refusal():
    def unusable(content: bytes) -> float:
        return outputs_of(content[: len(content) // 2], samples(1), threads=1)[0, 0]

    twin = make_twin(plain_net(), calibration=samples(), accuracy_percent=unusable, max_loss_points=100.0, threads=1)
    assert isinstance(twin, Refusal)
    assert twin.reason.startswith("ONNX Runtime cannot run its quantized form (InvalidProtobuf")


def test_a_residual_is_a_number_that_a_manifest_holds():
    answers = outputs_of(plain_net(), samples(8), threads=1)
    assert residual(answers, answers) == 0
    for found, wanted in ((answers * np.nan, answers), (answers * 1e30, answers), (answers, np.ones_like(answers))):
        assert 0 < residual(found, wanted) <= 1e30


def test_weights_that_are_no_numbers_are_a_refusal():
    model = onnx.load_model_from_string(plain_net())
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    values = numpy_helper.to_array(weights).copy()
    for value in (np.nan, np.inf):
        values.reshape(-1)[0] = value
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        twin = make_twin(
            model.SerializeToString(),
            calibration=samples(),
            accuracy_percent=lambda content: 0.0,
            max_loss_points=100.0,
            threads=1,
        )
        assert isinstance(twin, Refusal)
        assert "not finite" in twin.reason


@pytest.mark.parametrize(
    ("calibration", "problem"),
    [
        (samples(31), "has 31 samples"),
        (np.ones_like(samples()), "all the same"),
        (np.repeat(samples(1), 64, axis=0), "all the same"),
        (np.full_like(samples(), np.nan), "NaN"),
    ],
)
def test_samples_that_calibrate_nothing_are_refused(calibration, problem):
    with pytest.raises(UserError, match=problem) as caught:
        require_calibration(calibration)
    assert caught.value.field == "spec.methods.quantization.calibrationSamples"


def test_the_number_of_classes_is_kept():
    assert outputs_of(made(depthwise_net()).content, samples(3), threads=1).shape == (3, CLASSES)
