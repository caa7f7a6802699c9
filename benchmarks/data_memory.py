"""Peak memory and time of reading pictures, by their number: generated JPEGs of 224 pixels in class folders.

    python -m benchmarks.data_memory --folder /tmp/pictures --results benchmarks/results/data_memory.json

Each count is read in a process of its own: split, normalised, all digests and statistics, one pass of batches as an
epoch takes them, and 512 calibration samples. The pictures are links to 64 different files, so that a hundred thousand
take no space; each is decoded all the same. The file that holds the decoded samples takes 150 kB for each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, CLASSES, DIFFERENT, BATCH = 224, 10, 64, 64
CALIBRATION = 512


def write_pictures(folder: Path, count: int) -> None:
    """``count`` pictures in :data:`CLASSES` folders, smooth enough to be like photographs on disk."""
    generator = np.random.default_rng(0)
    originals = folder.parent / "originals"
    originals.mkdir(parents=True, exist_ok=True)
    for number in range(DIFFERENT):
        rough = generator.integers(0, 255, (28, 28, 3), dtype=np.uint8)
        picture = Image.fromarray(rough).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        picture.save(originals / f"{number}.jpg", quality=90)
    for number in range(count):
        place = folder / f"class{number % CLASSES}" / f"{number:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            os.link(originals / f"{number % DIFFERENT}.jpg", place)


def read(folder: Path, scratch: Path) -> dict[str, float]:
    """Read all as a pruning run does; figures of this process."""
    from edgefolio.specification import DataSpecification
    from edgefolio_pruner.data import load_data
    from edgefolio_pruner.training.batches import Batches

    before = _peak()
    started = time.perf_counter()
    data = load_data(DataSpecification(training_uri=str(folder)), seed=0, scratch=scratch)
    loaded = time.perf_counter()
    batches = Batches(data.train, batch_size=BATCH, augmentation="Flip", seed=0)
    for position in range(batches.per_epoch):
        batches.batch(epoch=0, position=position)
    epoch = time.perf_counter()
    calibration = data.calibration(CALIBRATION, seed=0)
    return {
        "samples": data.train.samples + data.validation.samples + data.test.samples,
        "peakMebibytesBefore": before,
        "peakMebibytes": _peak(),
        "calibrationMebibytes": calibration.nbytes / 2**20,
        "readSeconds": round(loaded - started, 1),
        "epochSeconds": round(epoch - loaded, 1),
    }


def _peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> None:
    """Generate, read each count in a process of its own, write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read is not None:
        print(json.dumps(read(arguments.read, arguments.folder)))
        return
    rows = []
    for count in arguments.counts:
        folder = arguments.folder / f"pictures-{count}"
        write_pictures(folder, count)
        command = [
            sys.executable,
            "-m",
            "benchmarks.data_memory",
            "--folder",
            str(arguments.folder),
            "--read",
            str(folder),
        ]
        rows.append(json.loads(subprocess.check_output(command, text=True)))
        print(rows[-1], flush=True)
    document = {
        "picture": f"JPEG, {SIZE} x {SIZE}",
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "loadAverage": os.getloadavg()[0],
        "counts": rows,
    }
    if arguments.results is not None:
        arguments.results.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
