"""Quantized shards: near the float split, float where the bound asks for it, and a probe that finds a wrong weight."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
import torch
from divided_nets import captured_net
from generated_nets import samples
from onnx import numpy_helper

from edgefolio.records.split_plan import SplitPlan
from edgefolio_pruner.quantization.float_layers import Refusal
from edgefolio_pruner.quantization.shards import QuantizedSplit, quantize_split
from edgefolio_pruner.split.making import MadeSplit
from edgefolio_pruner.split.planning import SplitPlanner
from edgefolio_split.executor import SplitExecutor
from edgefolio_split.probes import probe_problems, with_probes

CALIBRATION = samples(number=96, seed=3)
OTHERS = samples(number=64, seed=4)


def float_split(kind: str) -> MadeSplit:
    captured = captured_net("residual", "inverted") if kind == "Rows" else captured_net("residual", "concatenation")
    planner = SplitPlanner(captured, CALIBRATION, shares=(50, 50), seed=0)
    return (planner.by_rows() if kind == "Rows" else planner.plan(0.5, wire=kind)).made


def answers(made: MadeSplit) -> np.ndarray:
    return SplitExecutor(made.plan, made.files.__getitem__).run(OTHERS.numpy()).outputs[0]


def agreement_with(made: MadeSplit) -> Callable[[SplitExecutor], float]:
    wanted = answers(made).argmax(axis=1)
    return lambda executor: 100 * float((executor.run(OTHERS.numpy()).outputs[0].argmax(axis=1) == wanted).mean())


def quantized(made: MadeSplit, *, most: float) -> QuantizedSplit | Refusal:
    return quantize_split(
        made,
        calibration=CALIBRATION.numpy(),
        accuracy_percent=agreement_with(made),
        max_loss_points=most,
        threads=1,
    )


def residual(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(((found - wanted) ** 2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum())


@pytest.fixture(scope="module", params=["UInt8", "Float32", "Rows"])
def pair(request: pytest.FixtureRequest) -> tuple[MadeSplit, QuantizedSplit]:
    torch.set_num_threads(1)
    made = float_split(request.param)
    found = quantized(made, most=100.0)
    assert isinstance(found, QuantizedSplit)
    return made, found


def test_it_answers_like_its_float_form_and_moves_the_same_bytes(pair: tuple[MadeSplit, QuantizedSplit]) -> None:
    made, found = pair
    assert residual(answers(found.made), answers(made)) < 0.05
    plan = found.made.plan
    assert (plan.precision, made.plan.precision) == ("Int8", "Float32")
    assert plan.exchanges == made.plan.exchanges
    assert (plan.wire, plan.element_bytes) == (made.plan.wire, made.plan.element_bytes)
    for segment in (segment for shard in plan.shards for segment in shard.segments):
        content = found.made.files[segment.file]
        assert hashlib.sha256(content).hexdigest() == segment.sha256
        assert len(content) == segment.size_bytes
    # With layers of every worker on bytes, in the standard domain.
    assert {layer.split("/")[0] for layer in found.int8_layers} == {"shard-0", "shard-1"}
    assert not found.float_layers
    domains = {
        node.domain for content in found.made.files.values() for node in onnx.load_model_from_string(content).graph.node
    }
    assert domains <= {"", "ai.onnx"}


def test_the_same_again_gives_the_same_bytes(pair: tuple[MadeSplit, QuantizedSplit]) -> None:
    made, found = pair
    again = quantized(made, most=100.0)
    assert isinstance(again, QuantizedSplit)
    assert again.made.plan.to_bytes() == found.made.plan.to_bytes()
    assert dict(again.made.files) == dict(found.made.files)


def probed(found: QuantizedSplit) -> tuple[SplitPlan, dict[str, bytes]]:
    plan, probes = with_probes(found.made.plan, found.made.files.__getitem__, OTHERS.numpy())
    return plan, {**found.made.files, **probes}


def faults(plan: SplitPlan, files: Mapping[str, bytes], changed: str = "", content: bytes = b"") -> list[str]:
    """Files that the probes find wrong, where one is replaced and the plan vouches for it."""
    files = {**files, changed: content}
    found = []
    for shard in plan.shards:
        segments = tuple(
            each.model_copy(update={"sha256": hashlib.sha256(files[each.file]).hexdigest()}) for each in shard.segments
        )
        found += list(probe_problems(shard.model_copy(update={"segments": segments}), files.__getitem__))
    return [name for name, _ in found]


def test_the_true_shards_pass_their_probes(pair: tuple[MadeSplit, QuantizedSplit]) -> None:
    plan, files = probed(pair[1])
    assert faults(plan, files) == []
    assert probed(pair[1])[1] == files
    for shard in plan.shards:
        assert shard.probe is not None
        # A few steps of 255, where a float segment is allowed a thousandth.
        assert shard.probe.relative_tolerance <= 0.03
        assert shard.probe.levels <= 8


def test_flipped_bits_in_weights_and_wrong_scales_are_found(pair: tuple[MadeSplit, QuantizedSplit]) -> None:
    plan, files = probed(pair[1])
    random = np.random.default_rng(0)
    flips = flips_found = scales = scales_found = 0
    for name in [segment.file for shard in plan.shards for segment in shard.segments]:
        model = onnx.load_model_from_string(files[name])
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1:
                for _ in range(3):
                    wrong = values.copy()
                    wrong.reshape(-1).view(np.uint8)[random.integers(values.size)] ^= 0x40
                    tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
                    flips += 1
                    flips_found += set(faults(plan, files, name, model.SerializeToString())) == {name}
            elif tensor.name.endswith("_scale") and not values.shape:
                tensor.CopyFrom(numpy_helper.from_array(np.asarray(values * np.float32(1.2)), tensor.name))
                scales += 1
                scales_found += name in faults(plan, files, name, model.SerializeToString())
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert flips >= 12
    # The rest meet channels that are cut off, or a gate that is open or closed whatever it reads.
    assert flips_found >= 0.75 * flips, f"{flips_found} of {flips} flipped weights were found"
    # A scale is that of both, of quantizing and of reading: a wrong one changes what is rounded, and what is cut off.
    assert scales_found >= 0.8 * scales, f"{scales_found} of {scales} scales were found"


def test_the_most_sensitive_layers_stay_float_or_the_split_is_refused() -> None:
    made = float_split("UInt8")
    tight = quantized(made, most=0.0)
    refused = quantized(made, most=-1.0)
    assert isinstance(refused, Refusal)
    assert "methods.quantization.maxAccuracyLossPoints allows -1" in refused.reason
    if isinstance(tight, QuantizedSplit):
        assert tight.loss_points <= 0
        names = {layer.name for layer in tight.float_layers}
        assert not names & set(tight.int8_layers)
