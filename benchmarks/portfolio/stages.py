"""The stages of one (network, seed): train, prune in one shot, shrink and export, measure. Each is kept when done."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from benchmarks.portfolio.latency import interleaved
from benchmarks.portfolio.scratch import step_seconds
from benchmarks.portfolio.settings import Network, Settings
from torch import nn

from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.export import export_onnx
from edgefolio_pruner.model_source.loading import build_architecture
from edgefolio_pruner.oneshot import prune_to_targets
from edgefolio_pruner.profiling.accuracy import measure_accuracy
from edgefolio_pruner.spatial import capture, compress
from edgefolio_pruner.training import train_levels

Json = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One network and seed, and the folder that holds what is finished."""

    settings: Settings
    network: Network
    seed: int
    folder: Path
    data: DataBundle
    say: Callable[[str], None]

    def build(self) -> nn.Module:
        """The network with the random weights of this seed."""
        return build_architecture(self.network.specification(), seed=self.seed)

    def result(self) -> Json:
        """Everything measured for this network and seed; runs what is missing."""
        training = self.stage("training", self.train)
        oneshot = self.stage("one-shot", self._prune)
        exported = self.stage("export", self.export)
        accuracy = self.stage("accuracy", lambda: self.measure_accuracy_of(("parent", "own")))
        speed = self.stage("speed", self._measure_speed)
        return {
            "network": self.network.name,
            "seed": self.seed,
            "training": training,
            "oneShot": oneshot,
            "exported": exported,
            "accuracy": accuracy,
            "speed": speed,
        }

    def stage(self, name: str, work: Callable[[], Json]) -> Json:
        """What ``work`` gives, or gave in an earlier run with the same settings."""
        path = self.folder / f"{name}.json"
        key = self.settings.fingerprint(self.network, self.seed)
        if path.exists():
            held: Json = json.loads(path.read_text())
            if held["settings"] == key:
                result: Json = held["result"]
                return result
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        self.say(f"{self.network.name}, seed {self.seed}: {name}")
        result = work()
        scratch = path.with_suffix(".part")
        scratch.write_text(json.dumps({"settings": key, "result": result}, indent=1))
        scratch.replace(path)
        self.say(f"{self.network.name}, seed {self.seed}: {name} done in {time.perf_counter() - started:.0f} s")
        return result

    def train(self) -> Json:
        """Train the dense network and the sparse levels."""
        last = [0.0]

        def show(*, stage: str, fraction: float, message: str) -> None:
            if time.monotonic() - last[0] > 60:
                last[0] = time.monotonic()
                self.say(f"{self.network.name}, seed {self.seed}: {stage} {100 * fraction:.0f} %, {message}")

        wall, cpu = time.perf_counter(), time.process_time()
        levels = train_levels(
            specification=self.settings.sparse_training,
            build=self.build,
            initial_state=None,
            data=self.data,
            seed=self.seed,
            threads=self.settings.threads,
            work_directory=self.folder / "training",
            progress=show,
        )
        # A level knows its wall time over all restarts; the share of it in which this thread ran is this session's.
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        share = min(1.0, cpu / wall) if wall > 1 else 1.0
        (self.folder / "states").mkdir(exist_ok=True)
        for level in levels:
            safetensors.torch.save_file(level.state(), self.state_path(level.name))
        return {
            level.name: {
                "seconds": level.seconds * share,
                "wallSeconds": level.seconds,
                "keptWeights": level.kept_weights / level.prunable_weights,
            }
            for level in levels
        }

    def _prune(self) -> Json:
        return self.prune_to(self.settings.macs_percents)

    def dense(self) -> nn.Module:
        """The trained network, in evaluation mode."""
        module = self.build()
        module.load_state_dict(safetensors.torch.load_file(self.state_path("dense")))
        return module.eval()

    def prune_to(self, macs_percents: Sequence[int]) -> Json:
        """One variant per target by one call of the one-shot route; each variant's time is its share of the call's."""
        module = self.dense()
        started, cpu = time.perf_counter(), time.process_time()
        results = prune_to_targets(
            module=module,
            calibration=torch.from_numpy(self.data.calibration(self.settings.calibration_samples, seed=self.seed)),
            macs_percents=macs_percents,
            seed=self.seed,
            threads=self.settings.threads,
        )
        wall, seconds = time.perf_counter() - started, time.process_time() - cpu
        for result in results:
            safetensors.torch.save_file(result.state, self.state_path(f"oneshot-{result.percent}"))
        return {
            f"oneshot-{result.percent}": {
                "seconds": seconds / len(results),
                "wallSeconds": wall / len(results),
                "macsPercentReached": result.macs_percent_reached,
                "kept": {name: list(counts) for name, counts in result.kept.items()},
            }
            for result in results
        }

    def export(self) -> Json:
        """Write every variant as ONNX in both forms, and count what is left."""
        example = (torch.from_numpy(self.data.test.images[:2].copy()),)
        found: Json = {}
        (self.folder / "models").mkdir(exist_ok=True)
        for name in self.names():
            module = self.build().eval()
            module.load_state_dict(safetensors.torch.load_file(self.state_path(name)))
            parent = export_onnx(
                module, example, self.model_path(name, "parent"), input_names=("input",), output_names=("logits",)
            )
            started = time.process_time()
            shrunk = compress(capture(module, example))
            shrinking = time.process_time() - started
            started = time.process_time()
            written = export_onnx(
                shrunk.module, example, self.model_path(name, "own"), input_names=("input",), output_names=("logits",)
            )
            found[name] = {
                "bytes": written.bytes,
                "parentBytes": parent.bytes,
                "parameters": shrunk.report.parameters_after,
                "parentParameters": shrunk.report.parameters_before,
                "macs": shrunk.report.macs_after,
                "parentMacs": shrunk.report.macs_before,
                "shrinkSeconds": shrinking,
                "exportSeconds": time.process_time() - started,
            }
        return found

    def measure_accuracy_of(self, forms: Sequence[str]) -> Json:
        """Percent of the test samples per variant and form of its file."""
        test = self.data.test
        found: Json = {}
        for name in self.names():
            for which in forms:
                accuracy = measure_accuracy(
                    self.model_path(name, which), test.images, test.labels, threads=self.settings.threads
                )
                found.setdefault(name, {})[which] = float(accuracy.percent)
        return found

    def _measure_speed(self) -> Json:
        names = self.names()
        paths = {f"{name}/{which}": self.model_path(name, which) for name in names for which in ("parent", "own")}
        shape = self.data.sample_shape
        latency = {
            str(batch): interleaved(paths, shape=shape, batch=batch, rounds=rounds, seed=self.seed)
            for batch, rounds in self.settings.rounds.items()
        }
        modules: dict[str, nn.Module] = {}
        example = (torch.from_numpy(self.data.test.images[:2].copy()),)
        for name in names:
            module = self.build().eval()
            module.load_state_dict(safetensors.torch.load_file(self.state_path(name)))
            modules[name] = compress(capture(module, example)).module
        images = torch.from_numpy(self.data.train.images[: self.settings.sparse_training.batch_size].copy())
        labels = torch.from_numpy(self.data.train.labels[: self.settings.sparse_training.batch_size].copy())
        steps = step_seconds(modules, images, labels, steps=self.settings.timed_steps, threads=self.settings.threads)
        return {
            "milliseconds": {
                batch: {
                    clock: {name: [round(1000 * value, 4) for value in values] for name, values in times.items()}
                    for clock, times in clocks.items()
                }
                for batch, clocks in latency.items()
            },
            "stepSeconds": {name: statistics.median(values) for name, values in steps.items()},
            "loadAverage": os.getloadavg()[0],
        }

    def names(self) -> tuple[str, ...]:
        """All variants: dense, the sparse levels, the one-shot targets."""
        sparse = [f"sparse-{level}" for level in range(1, self.settings.sparse_training.levels + 1)]
        return ("dense", *sparse, *(f"oneshot-{percent}" for percent in self.settings.macs_percents))

    def model_path(self, name: str, which: str) -> Path:
        """``own``: shrunk; ``parent``: the same weights, zeros and all, in the dense shape."""
        return self.folder / "models" / f"{name}-{which}.onnx"

    def state_path(self, name: str) -> Path:
        """The weights of a variant in the dense shape."""
        return self.folder / "states" / f"{name}.safetensors"
