"""One trained network and seed: its dense module, its one-shot variants, their files, accuracies and times."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from benchmarks.portfolio.latency import interleaved
from benchmarks.variants.data import CALIBRATION_SAMPLES
from benchmarks.variants.nets import Net
from benchmarks.variants.store import PRODUCT, Store
from benchmarks.variants.training.standstill import Trained, module_of
from torch import nn

from edgefolio.repository.fetching import digest_of_file
from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.export import export_onnx
from edgefolio_pruner.oneshot import OneShotResult, prune_to_targets
from edgefolio_pruner.profiling.accuracy import measure_accuracy
from edgefolio_pruner.spatial import capture, compress

Json = dict[str, Any]
#: Timed rounds per batch size, each of every file once.
ROUNDS: Mapping[int, int] = {1: 300, 32: 60}


@dataclasses.dataclass(frozen=True)
class Bench:
    """What the claims about one network and seed work with; ``trained`` is the dense model."""

    name: str
    net: Net
    seed: int
    data: DataBundle
    trained: Trained
    store: Store

    def dense(self) -> nn.Module:
        """The dense module, in evaluation mode."""
        return module_of(self.net, self.seed, self.trained.state)

    @cached_property
    def calibration(self) -> torch.Tensor:
        """The 512 unlabelled images that every method here may look at."""
        return torch.from_numpy(self.data.calibration(CALIBRATION_SAMPLES, seed=self.seed))

    @property
    def example(self) -> tuple[torch.Tensor, ...]:
        """Two images, for capture and export."""
        return (torch.from_numpy(self.data.test.images[:2].copy()),)

    @cached_property
    def dense_file(self) -> Path:
        """The dense model as ONNX, batch norms folded."""
        path = self.store.folder / "dense.onnx"
        self.store.stage("dense", lambda: {"sha256": self.export(self.dense(), path)}, code=PRODUCT)
        return path

    def export(self, module: nn.Module, path: Path) -> str:
        """Write ``module`` to ``path`` as the product does; the digest of the file."""
        export_onnx(module, self.example, path, input_names=("input",), output_names=("logits",))
        return digest_of_file(path)

    def one_shot(self, name: str, percents: Sequence[int]) -> Json:
        """One-shot variants for ``percents`` by one call, pruned exactly and exported; per percent its record.

        ``seconds`` is processor time: that of the call in equal parts, and each variant's own.
        """

        def work() -> Json:
            started = time.process_time()
            results = prune_to_targets(
                module=self.dense(), calibration=self.calibration, macs_percents=percents, seed=self.seed, threads=1
            )
            pruning = (time.process_time() - started) / len(results)
            return {
                str(percent): self._written(name, percent, result, pruning)
                for percent, result in zip(percents, results, strict=True)
            }

        return self.store.stage(name, work, code=PRODUCT, percents=list(percents))

    def _written(self, name: str, percent: int, result: OneShotResult, pruning: float) -> Json:
        started = time.process_time()
        safetensors.torch.save_file(result.state, self.state_path(name, percent))
        module = self.dense()
        module.load_state_dict(result.state)
        shrunk = compress(capture(module, self.example))
        path = self.file_path(name, percent)
        sha256 = self.export(shrunk.module, path)
        return {
            "sha256": sha256,
            "bytes": path.stat().st_size,
            "macs": shrunk.report.macs_after,
            "macsPercent": round(100 * shrunk.report.macs_after / shrunk.report.macs_before, 2),
            "parameters": shrunk.report.parameters_after,
            "seconds": round(pruning + time.process_time() - started, 2),
            "kept": {group: list(counts) for group, counts in result.kept.items()},
            "reached": result.reached,
        }

    def state_path(self, name: str, percent: int) -> Path:
        """The weights of a one-shot variant, in the dense shape."""
        return self.store.folder / f"{name}-{percent}.safetensors"

    def file_path(self, name: str, percent: int) -> Path:
        """The ONNX file of a one-shot variant."""
        return self.store.folder / f"{name}-{percent}.onnx"

    def accuracy(self, path: Path, split: str = "test") -> float:
        """Percent of the test (or validation) images that the file gets right."""

        def work() -> Json:
            part = self.data.test if split == "test" else self.data.validation
            return {"percent": float(measure_accuracy(path, part.images, part.labels, threads=1).percent)}

        found = self.store.stage(f"accuracy-{split}-{path.stem}", work, code=(), sha256=digest_of_file(path))
        return float(found["percent"])

    def times(self, files: Mapping[str, Path], batch: int) -> dict[str, list[float]]:
        """Processor seconds of each file per round, interleaved; never kept, so that ratios are of one run."""
        times = interleaved(files, shape=self.data.sample_shape, batch=batch, rounds=ROUNDS[batch], seed=self.seed)
        return times["cpu"]
