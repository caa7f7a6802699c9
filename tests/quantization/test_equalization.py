"""Equalization across layers: the same function in float, fewer lost steps in bytes."""

from __future__ import annotations

import numpy as np
import pytest
from float_nets import Net, agreement_with, depthwise_net, plain_net, samples

from edgefolio_pruner.quantization import Twin, make_twin, outputs_of
from edgefolio_pruner.quantization.calibration import activation_ranges
from edgefolio_pruner.quantization.equalization import equalized
from edgefolio_pruner.quantization.qdq import load_float, quantized
from edgefolio_pruner.quantization.sensitivity import residual

BOUNDS = {"ReLU": None, "ReLU6": 6.0, "ReLU6 that cuts off": 0.5}


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_changes_no_answer_on_the_calibrated_range(seed, spread, bound):
    content = depthwise_net(seed, spread=spread, bound=bound)
    model = load_float(content)
    even = equalized(model, activation_ranges(model, samples(), threads=1))
    assert even is not None
    assert even.SerializeToString() != model.SerializeToString()
    assert model.SerializeToString() == load_float(content).SerializeToString()
    wanted = outputs_of(content, samples(), threads=1)
    found = outputs_of(even.SerializeToString(), samples(), threads=1)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize("seed", range(3))
def test_channels_of_different_size_survive_with_it(seed, bound):
    """Without it the depthwise convolutions of this net answer mostly noise."""
    content = depthwise_net(seed, spread=100.0, bound=bound)
    model = load_float(content)
    ranges = activation_ranges(model, samples(), threads=1)
    even = equalized(model, ranges)
    assert even is not None
    wanted = outputs_of(content, samples(), threads=1)
    without = residual(outputs_of(quantized(model, ranges), samples(), threads=1), wanted)
    made = quantized(even, activation_ranges(even, samples(), threads=1))
    assert residual(outputs_of(made, samples(), threads=1), wanted) < without
    twin = make_twin(
        content,
        calibration=samples(),
        accuracy_percent=agreement_with(content),
        max_loss_points=100.0,
        threads=1,
    )
    assert isinstance(twin, Twin)
    assert twin.equalized
    assert twin.content == made


def test_branches_and_answers_are_left_alone():
    """A value with two readers, or one that is an answer, keeps its scale; so does one behind another activation."""
    branched = Net(0).conv(8)
    stream = branched.value
    nets = [
        branched.operator("Relu").conv(8).add(stream).classifier().content(),
        Net(0).conv(8).operator("HardSwish").conv(8).classifier().content(),
        Net(0).conv(8).operator("Relu").classifier().content(),
    ]
    for content in nets:
        model = load_float(content)
        assert equalized(model, activation_ranges(model, samples(), threads=1)) is None


def test_a_dead_channel_and_one_that_nobody_reads_are_kept():
    content = plain_net()
    model = load_float(content)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    from onnx import numpy_helper

    for node, index in ((convolutions[1], np.s_[2]), (convolutions[2], np.s_[:, 3])):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
        values = numpy_helper.to_array(tensor).copy()
        values[index] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    wanted = outputs_of(model.SerializeToString(), samples(), threads=1)
    even = equalized(model, activation_ranges(model, samples(), threads=1))
    assert even is not None
    found = outputs_of(even.SerializeToString(), samples(), threads=1)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
