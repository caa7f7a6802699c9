"""A benchmark that repeats its stages over networks and seeds: resumable, one JSON file and one page of results."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from benchmarks.portfolio.settings import Settings
from benchmarks.portfolio.stages import Run

from edgefolio_pruner.data import DataBundle, Split
from edgefolio_pruner.data.bundle import digest_of
from edgefolio_pruner.data.loading import load_data
from edgefolio_pruner.profiling.environment import describe_environment
from edgefolio_pruner.randomness import shuffled

Json = dict[str, Any]

RESULTS = Path(__file__).resolve().parent / "results"
STARTED = time.monotonic()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """``name`` is that of the folder beside this file and of its results; ``run`` does the stages of one seed."""

    name: str
    settings: Settings
    run: type[Run]
    summarize: Callable[[Sequence[Json]], Json]
    markdown: Callable[[Json], str]

    @property
    def command(self) -> str:
        """What a reader types to get these figures."""
        return f"python benchmarks/{self.name}/run.py"


def main(benchmark: Benchmark, *, description: str | None) -> None:
    """Run what is missing, seed by seed, and write the results after each."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=RESULTS.parent / "work" / benchmark.name)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    path = arguments.results / f"{benchmark.name}.json"
    if not arguments.table_only:
        settings = benchmark.settings
        torch.set_num_threads(settings.threads)
        finished = []
        for seed in settings.seeds:
            data = shortened(load_data(settings.data, seed=seed), settings.training_samples, seed=seed)
            for network in settings.networks:
                folder = arguments.work_dir / network.architecture / f"seed-{seed}"
                run = benchmark.run(settings=settings, network=network, seed=seed, folder=folder, data=data, say=say)
                finished.append(run.result())
                write(path, benchmark, finished)
                write_table(path, benchmark)
    else:
        write_table(path, benchmark)


def write_table(path: Path, benchmark: Benchmark) -> None:
    """The Markdown page beside the results."""
    path.with_suffix(".md").write_text(benchmark.markdown(json.loads(path.read_text())))
    say(f"wrote {path} and its table")


def say(message: str) -> None:
    """One line with the minutes since the start."""
    print(f"[{(time.monotonic() - STARTED) / 60:5.1f} min] {message}", flush=True)


def shortened(data: DataBundle, samples: int, *, seed: int) -> DataBundle:
    """The same data with ``samples`` training samples, drawn by ``seed``."""
    if samples >= data.train.samples:
        return data
    chosen = np.sort(shuffled(data.train.samples, seed=seed, stream="benchmark")[:samples])
    images, labels = data.train.images[chosen], data.train.labels[chosen]
    train = Split(images=images, labels=labels, digest=digest_of(images, labels))
    return dataclasses.replace(data, train=train)


def write(path: Path, benchmark: Benchmark, finished: Sequence[Json]) -> None:
    """The summary of what is finished, with where and with what it was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = benchmark.settings
    environment = describe_environment(threads=settings.threads, onnxruntime_version=onnxruntime.__version__)
    content = {
        "command": benchmark.command,
        "machine": environment.model_dump(mode="json", by_alias=True),
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "settings": {network.name: settings.fingerprint(network, -1) for network in settings.networks},
        "networks": benchmark.summarize(finished),
    }
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(content, indent=1) + "\n")
    scratch.replace(path)
