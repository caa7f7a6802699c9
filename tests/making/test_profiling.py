"""Profiles through real runner processes and the real runtime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefolio.errors import EdgefolioError
from edgefolio.manifest import Accuracy
from edgefolio.processor import this_processor
from edgefolio_pruner.profiling.accuracy import measure_accuracy
from edgefolio_pruner.profiling.environment import cpu_quota, describe_environment
from edgefolio_pruner.profiling.measure import RunnerProcess, profile_variants, summarise_latencies


def write_linear_model(path: Path, weight: np.ndarray) -> Path:
    """output = input @ weight."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["output"])],
        "model",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", weight.shape[0]])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_the_larger_model_takes_more_memory_and_time(tmp_path):
    sizes = {"small": 64, "large": 2048}
    models = {
        name: write_linear_model(tmp_path / f"{name}.onnx", np.ones((size, size))) for name, size in sizes.items()
    }
    del models["small"]
    models["also-large"] = models["large"]
    small = write_linear_model(tmp_path / "narrow.onnx", np.ones((2048, 8)))
    models["small"] = small
    profiles = profile_variants(
        models, input_shapes={"input": (2048,)}, batch_sizes=(1, 16), threads=1, samples=25, rounds=3
    )
    assert set(profiles) == {"large", "also-large", "small"}
    for profile in profiles.values():
        assert [latency.batch_size for latency in profile.latencies] == [1, 16]
        assert all(latency.samples == 27 for latency in profile.latencies)
        assert all(latency.p50_milliseconds <= latency.p95_milliseconds for latency in profile.latencies)
        assert all(latency.p99_milliseconds is None for latency in profile.latencies)
        assert profile.memory_steady_bytes <= profile.memory_peak_bytes
    weight_bytes = 4 * 2048 * 2048
    assert profiles["small"].memory_peak_bytes < weight_bytes / 2 < profiles["large"].memory_steady_bytes
    assert profiles["large"].memory_steady_bytes < 4 * weight_bytes
    assert profiles["small"].latencies[1].p50_milliseconds < profiles["large"].latencies[1].p50_milliseconds


def test_a_broken_model_is_an_error_that_names_it(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(EdgefolioError, match="'broken' cannot be profiled"):
        profile_variants(
            {"broken": broken}, input_shapes={"input": (4,)}, batch_sizes=(1,), threads=1, samples=20, rounds=2
        )


def test_a_runner_that_dies_is_an_error_and_none_is_left(tmp_path):
    with RunnerProcess("victim") as runner:
        os.kill(runner._process.pid, 9)
        with pytest.raises(EdgefolioError, match="died"):
            runner.ask(command="run", batch=1, samples=1, warm_up=0)
    assert runner._process.poll() is not None


def test_p99_needs_a_thousand_samples():
    assert summarise_latencies([1.0] * 999, batch_size=1).p99_milliseconds is None
    values = list(range(1, 1001))
    profile = summarise_latencies(values, batch_size=4)
    assert profile.p99_milliseconds == pytest.approx(990, abs=1)
    assert profile.p50_milliseconds == pytest.approx(500.5)
    assert profile.mean_milliseconds == pytest.approx(500.5)


def test_accuracy_counts_through_the_file(tmp_path):
    path = write_linear_model(tmp_path / "model.onnx", np.eye(3))
    images = np.eye(3, dtype=np.float32)[np.arange(600) % 3]
    labels = np.arange(600) % 3
    labels[:60] = (labels[:60] + 1) % 3
    assert measure_accuracy(path, images, labels, threads=1) == Accuracy.from_counts(correct=540, samples=600)
    images[100] = np.nan
    assert measure_accuracy(path, images, labels, threads=1) == Accuracy.from_counts(correct=539, samples=600)


def test_the_environment_is_described(tmp_path):
    environment = describe_environment(threads=2, onnxruntime_version="1")
    assert environment.threads == 2
    assert environment.cpu_model == this_processor().model
    assert set(environment.instruction_sets) <= this_processor().flags
    assert environment.logical_cpus == len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path) is None
    assert cpu_quota(tmp_path / "none") is None
