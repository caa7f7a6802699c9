"""One-shot and int8 together: the fastest within one point of dense on validation, against the dense float file."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.variants.bench import ROUNDS, Bench
from benchmarks.variants.tables.rows import Row, ratio
from benchmarks.variants.twins import twin

CLAIM, NAME, MOST_POINTS = "within-one-point", "ladder", 1.0
PERCENTS = (70, 55, 45, 35, 28, 22)


def rows(bench: Bench) -> tuple[Row, ...]:
    """Speed at every batch size of the file chosen for that batch size; test accuracy in the detail."""
    bench.one_shot(NAME, PERCENTS)
    floats = [bench.dense_file, *(bench.file_path(NAME, percent) for percent in PERCENTS)]
    files: dict[str, Path] = {}
    for path in floats:
        files[path.stem] = path
        made = twin(bench, path)
        if made is not None:
            files[made.stem] = made
    least = bench.accuracy(bench.dense_file, "validation") - MOST_POINTS
    able = {name: path for name, path in files.items() if bench.accuracy(path, "validation") >= least}
    found = []
    for batch in ROUNDS:
        times = bench.times(able, batch)
        fastest = min(able, key=lambda name: statistics.median(times[name]))
        speed, spread = ratio(times["dense"], times[fastest])
        detail = {
            "variant": fastest,
            "testLoss": bench.accuracy(bench.dense_file) - bench.accuracy(able[fastest]),
            "bytesSmaller": bench.dense_file.stat().st_size / able[fastest].stat().st_size,
            "milliseconds": 1000 * statistics.median(times[fastest]),
        }
        found.append(
            Row(
                claim=CLAIM,
                measure=f"speed-{batch}",
                net=bench.name,
                seed=bench.seed,
                value=speed,
                spread=spread,
                detail=detail,
            )
        )
    return tuple(found)
