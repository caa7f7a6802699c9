"""Fair profiler of several variants: a process each, one running at a time, in interleaved rounds.

Noise (another process, a lower clock) then affects all variants alike. The parent hands out
the right to run by sending a command to one runner and waiting for its answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgefolio.errors import EdgefolioError
from edgefolio.manifest import LatencyProfile, Profile
from edgefolio_pruner.profiling.environment import describe_environment
from edgefolio_pruner.progress import Progress, no_progress

#: A p99 of fewer samples would be a guess.
SAMPLES_FOR_P99 = 1000
_WARM_UP = 3
_STAGE = "profile"


@dataclass(frozen=True, kw_only=True)
class MeasuredProfile:
    """A profile, and how far the slowest of its rounds was above the fastest, in percent of the median latency."""

    profile: Profile
    spread_percent: float


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file, with the element type and the shape without the batch axis of each input."""

    path: Path
    inputs: Mapping[str, tuple[str, tuple[int, ...]]]


def profile_variants(
    models: Mapping[str, Path],
    *,
    input_shapes: Mapping[str, Sequence[int]],
    batch_sizes: Sequence[int],
    threads: int,
    samples: int,
    rounds: int,
    progress: Progress = no_progress,
) -> dict[str, Profile]:
    """The profiles of :func:`measure_variants` alone."""
    measured = measure_variants(
        models,
        input_shapes=input_shapes,
        batch_sizes=batch_sizes,
        threads=threads,
        samples=samples,
        rounds=rounds,
        progress=progress,
    )
    return {name: entry.profile for name, entry in measured.items()}


def measure_variants(
    models: Mapping[str, Path],
    *,
    input_shapes: Mapping[str, Sequence[int]],
    batch_sizes: Sequence[int],
    threads: int,
    samples: int,
    rounds: int,
    progress: Progress = no_progress,
) -> dict[str, MeasuredProfile]:
    """The profile of each ONNX file in ``models`` (by name), as :func:`measure_models`.

    ``input_shapes`` are by input name, without the batch axis; inputs are float32.
    """
    inputs = {name: ("float32", tuple(shape)) for name, shape in input_shapes.items()}
    return measure_models(
        {name: (ModelFile(path, inputs),) for name, path in models.items()},
        batch_sizes=batch_sizes,
        threads=threads,
        samples=samples,
        rounds=rounds,
        progress=progress,
    )


def measure_models(
    models: Mapping[str, Sequence[ModelFile]],
    *,
    batch_sizes: Sequence[int],
    threads: int,
    samples: int,
    rounds: int,
    progress: Progress = no_progress,
) -> dict[str, MeasuredProfile]:
    """The profile of each of ``models`` (by name) in this environment: its files are run one after another.

    Every batch of ``batch_sizes`` is run at least ``samples`` times per variant, spread over ``rounds`` in which the
    variants take turns in rotating order, on ``threads`` threads without spinning. Raises :class:`EdgefolioError` if a
    variant cannot be run.
    """
    per_round = -(-samples // rounds)
    names = list(models)
    latencies: dict[tuple[str, int], list[float]] = {(name, batch): [] for name in names for batch in batch_sizes}
    medians: dict[tuple[str, int], list[float]] = {key: [] for key in latencies}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefolio-profile-")))
        empty = _write_empty_model(folder / "empty.onnx")
        runners: dict[str, RunnerProcess] = {}
        loads: dict[str, dict[str, Any]] = {}
        for position, (name, files) in enumerate(models.items()):
            progress(stage=_STAGE, fraction=0.2 * position / len(names), message=f"loading {name}")
            runners[name] = stack.enter_context(RunnerProcess(name))
            loads[name] = runners[name].ask(
                command="load",
                paths=[str(file.path) for file in files],
                empty_path=str(empty),
                threads=threads,
                batch_sizes=list(batch_sizes),
                inputs=[dict(file.inputs) for file in files],
            )
        for number in range(rounds):
            turn = number % len(names)
            for position, name in enumerate(names[turn:] + names[:turn]):
                done = (number + position / len(names)) / rounds
                progress(stage=_STAGE, fraction=0.2 + 0.8 * done, message=f"round {number + 1} of {rounds}: {name}")
                for batch in batch_sizes:
                    answer = runners[name].ask(command="run", batch=batch, samples=per_round, warm_up=_WARM_UP)
                    latencies[name, batch] += answer["latencies"]
                    medians[name, batch].append(float(np.median(answer["latencies"])))
    return {
        name: MeasuredProfile(
            profile=Profile(
                environment=describe_environment(
                    threads=threads, onnxruntime_version=str(loads[name]["onnxruntime_version"])
                ),
                latencies=tuple(summarise_latencies(latencies[name, batch], batch_size=batch) for batch in batch_sizes),
                load_milliseconds=loads[name]["load_milliseconds"],
                memory_peak_bytes=loads[name]["memory_peak_bytes"],
                memory_steady_bytes=loads[name]["memory_steady_bytes"],
            ),
            spread_percent=max(spread_of(medians[name, batch]) for batch in batch_sizes),
        )
        for name in names
    }


def spread_of(medians: Sequence[float]) -> float:
    """How far the largest of ``medians`` is above the smallest, in percent."""
    return 100 * (max(medians) / min(medians) - 1)


def summarise_latencies(milliseconds: Sequence[float], *, batch_size: int) -> LatencyProfile:
    """Mean and percentiles (linear interpolation) of measured latencies; p99 only from 1,000 samples on."""
    values = np.asarray(milliseconds, dtype=np.float64)
    p50, p95, p99 = (float(value) for value in np.percentile(values, (50, 95, 99)))
    return LatencyProfile(
        batch_size=batch_size,
        mean_milliseconds=float(values.mean()),
        p50_milliseconds=p50,
        p95_milliseconds=p95,
        p99_milliseconds=p99 if len(values) >= SAMPLES_FOR_P99 else None,
        samples=len(values),
    )


class RunnerProcess:
    """The parent's end of one runner; a context that leaves no process behind."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Thread pools of OpenMP or BLAS in the runner are no part of the variant.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgefolio_pruner.profiling.runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, **command: object) -> dict[str, Any]:
        """Send one command and wait for its answer. Raises :class:`EdgefolioError` if the runner fails or dies."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(command), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EdgefolioError(f"The process that profiles {self._name!r} died (exit code {self._process.wait()}).")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EdgefolioError(f"{self._name!r} cannot be profiled: {answer['error']}")
        return answer

    def __enter__(self) -> RunnerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _write_empty_model(path: Path) -> Path:
    """The smallest model: it returns its input."""
    from onnx import TensorProto, helper, save

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], "empty", value[:1], value[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path
