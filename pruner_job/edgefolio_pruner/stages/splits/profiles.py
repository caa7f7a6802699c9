"""Profiles of shards: what each worker of a split costs on this machine, its segments one after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from edgefolio.manifest import LatencyProfile, Profile
from edgefolio.specification.profiling import Profiling
from edgefolio_pruner.profiling.measure import ModelFile, measure_models
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.stages.splits.records import MadePlan

__all__ = ["member_profile", "shard_profiles"]

_TYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.UINT8: "uint8"}


def shard_profiles(
    plans: Mapping[str, MadePlan], settings: Profiling, *, progress: Progress
) -> dict[str, tuple[Profile, ...]]:
    """The profile of each worker of each of ``plans``, by rank. Inputs are random numbers: operators take as long."""
    models = {
        f"{name}, worker {shard.rank}": tuple(_model_file(made, segment.file) for segment in shard.segments)
        for name, made in plans.items()
        for shard in made.plan().shards
    }
    measured = measure_models(
        models,
        batch_sizes=settings.batch_sizes,
        threads=settings.threads,
        samples=settings.samples,
        rounds=settings.rounds,
        progress=progress,
    )
    return {
        name: tuple(measured[f"{name}, worker {shard.rank}"].profile for shard in made.plan().shards)
        for name, made in plans.items()
    }


def member_profile(workers: tuple[Profile, ...]) -> Profile:
    """The profile of the whole: at each batch the latency of the slowest worker, and the largest of all else."""
    first = workers[0]
    latencies = tuple(
        max((profile.latencies[number] for profile in workers), key=_mean) for number in range(len(first.latencies))
    )
    return Profile(
        environment=first.environment,
        latencies=latencies,
        load_milliseconds=max(profile.load_milliseconds for profile in workers),
        memory_peak_bytes=max(profile.memory_peak_bytes for profile in workers),
        memory_steady_bytes=max(profile.memory_steady_bytes for profile in workers),
    )


def _mean(latency: LatencyProfile) -> float:
    return latency.mean_milliseconds


def _model_file(made: MadePlan, name: str) -> ModelFile:
    path = made.folder / name
    # Weights are not needed for the inputs, but a segment is small enough to be read whole.
    graph = onnx.load(path).graph
    return ModelFile(path, {value.name: _input(value.type.tensor_type) for value in graph.input})


def _input(tensor: Any) -> tuple[str, tuple[int, ...]]:
    """Element type, and shape without the batch axis."""
    return _TYPES[tensor.elem_type], tuple(size.dim_value for size in tensor.shape.dim[1:])
