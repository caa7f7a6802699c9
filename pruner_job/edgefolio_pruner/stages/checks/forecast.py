"""Forecast of a pruning run: about how much memory and time it takes, from one run of the network and its sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
import torch
from torch import fx, nn

from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.oneshot import one_shot_bytes
from edgefolio_pruner.spatial import CapturedModel

_SAMPLES = 4
#: A training step takes about so many times the work of a forward pass.
_STEP = 3.0
#: Passes of all calibration samples for each share: the net by each plan, and rows of its maps.
_PASSES_PER_SHARE, _SURVEY_PASSES = 8.0, 6.0
#: Passes of a proof in float64, which is slower.
_PROOF_SAMPLES, _PROOF_PASSES = 128, 8.0
#: Copies of the weights that are held while a candidate is proven, in units of their float32 bytes.
_PROOF_COPIES = 8
#: Gradients, momentum, masks and a checkpoint beside the weights.
_TRAINING_COPIES = 5


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """``memory_bytes`` by stage, with what the process holds already; ``seconds`` in all; both to a factor of 2."""

    memory_bytes: Mapping[str, int]
    seconds: float

    @property
    def peak_bytes(self) -> int:
        """The largest of all stages."""
        return max(self.memory_bytes.values())


def forecast(portfolio: ModelPortfolio, source: MakingSource, captured: CapturedModel, *, threads: int) -> Forecast:
    """What making ``portfolio`` will take on this machine."""
    methods, data = portfolio.spec.methods, source.data
    module = source.build().eval()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    held = psutil.Process().memory_info().rss
    sample_seconds = _sample_seconds(module, source, threads=threads)
    kept = _kept_bytes(captured.graph_module.graph)
    sample_bytes = 4 * sum(math.prod(shape) for shape in data.input_shapes.values())
    memory = {"proof and export": held + _PROOF_COPIES * weights + 64 * kept}
    seconds, candidates = 0.0, 1
    if methods.sparse_training is not None:
        training = methods.sparse_training
        epochs = training.levels * training.epochs_per_level
        epochs += training.dense_epochs if source.initial_state is None else 0
        seconds += epochs * (_STEP * data.train.samples + data.validation.samples) * sample_seconds
        candidates += training.levels
        batch = min(training.batch_size, data.train.samples)
        memory["training"] = held + _TRAINING_COPIES * weights + 2 * batch * (kept + sample_bytes)
    if methods.one_shot is not None:
        assert portfolio.spec.data is not None
        shares = len(methods.one_shot.macs_percent) + len(methods.one_shot.latency_percent)
        samples = min(portfolio.spec.data.calibration_samples, data.train.samples)
        seconds += samples * (_SURVEY_PASSES + shares * _PASSES_PER_SHARE) * sample_seconds
        candidates += shares
        memory["one-shot"] = held + one_shot_bytes(captured, source.example(), samples=samples) + samples * sample_bytes
    profiling = portfolio.spec.profiling
    runs = sum(batch * (profiling.samples + 4 * profiling.rounds) for batch in profiling.batch_sizes)
    per_candidate = 2 * data.validation.samples + data.test.samples + _PROOF_PASSES * _PROOF_SAMPLES + runs
    return Forecast(memory_bytes=memory, seconds=seconds + candidates * per_candidate * sample_seconds)


def _sample_seconds(module: nn.Module, source: MakingSource, *, threads: int) -> float:
    """Seconds of one sample in a small batch, the least of three runs."""
    samples = source.example(_SAMPLES)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = []
        with torch.inference_mode():
            for _ in range(3):
                started = time.perf_counter()
                module(*samples)
                found.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return min(found) / len(samples[0])


def _kept_bytes(graph: fx.Graph) -> int:
    """Bytes of all activations of one sample, as a backward pass keeps them."""
    total = 0
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.Tensor) and value.ndim:
            total += 4 * value[0].numel()
    return total
