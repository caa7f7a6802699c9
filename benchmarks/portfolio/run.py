"""Accuracy, size, speed and making time of portfolios by both routes, over several seeds. Resumable at any point.

    nice -n 15 python benchmarks/portfolio/run.py

runs every (network, seed) that is not finished in ``--work-dir`` and writes ``benchmarks/results/portfolio.json`` and
``portfolio.md`` after each. ``--table-only`` writes the table from what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime
import settings
import torch
from stages import Run
from summary import summarize
from table import markdown

from edgefolio_pruner.data import DataBundle, Split
from edgefolio_pruner.data.bundle import digest_of
from edgefolio_pruner.data.loading import load_data
from edgefolio_pruner.profiling.environment import describe_environment
from edgefolio_pruner.randomness import shuffled

RESULTS = Path(__file__).resolve().parents[1] / "results"
STARTED = time.monotonic()


def say(message: str) -> None:
    """One line with the minutes since the start."""
    print(f"[{(time.monotonic() - STARTED) / 60:5.1f} min] {message}", flush=True)


def main() -> None:
    """Run what is missing, seed by seed, and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=RESULTS.parent / "work" / "portfolio")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    path = arguments.results / "portfolio.json"
    if not arguments.table_only:
        torch.set_num_threads(settings.THREADS)
        finished = []
        for seed in settings.SEEDS:
            data = shortened(load_data(settings.DATA, seed=seed), settings.TRAINING_SAMPLES, seed=seed)
            for network in settings.NETWORKS:
                folder = arguments.work_dir / network.architecture / f"seed-{seed}"
                finished.append(Run(network=network, seed=seed, folder=folder, data=data, say=say).result())
                write(path, finished)
                write_table(path)
    else:
        write_table(path)


def write_table(path: Path) -> None:
    """The Markdown page beside the results."""
    path.with_suffix(".md").write_text(markdown(json.loads(path.read_text())))
    say(f"wrote {path} and its table")


def shortened(data: DataBundle, samples: int, *, seed: int) -> DataBundle:
    """The same data with ``samples`` training samples, drawn by ``seed``."""
    if samples >= data.train.samples:
        return data
    chosen = np.sort(shuffled(data.train.samples, seed=seed, stream="benchmark")[:samples])
    images, labels = data.train.images[chosen], data.train.labels[chosen]
    train = Split(images=images, labels=labels, digest=digest_of(images, labels))
    return dataclasses.replace(data, train=train)


def write(path: Path, finished: list[dict[str, object]]) -> None:
    """The summary of what is finished, with where and with what it was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = describe_environment(threads=settings.THREADS, onnxruntime_version=onnxruntime.__version__)
    content = {
        "command": "python benchmarks/portfolio/run.py",
        "machine": environment.model_dump(mode="json", by_alias=True),
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "settings": {network.name: settings.fingerprint(network, -1) for network in settings.NETWORKS},
        "networks": summarize(finished),
    }
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(content, indent=1) + "\n")
    scratch.replace(path)


if __name__ == "__main__":
    main()
