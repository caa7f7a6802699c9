"""The fastest published variant within two points of dense, against the dense float file."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.variants.bench import Bench
from benchmarks.variants.published import portfolio
from benchmarks.variants.tables.rows import Row, ratio

CLAIM, MOST_POINTS = "portfolio", 2.0


def rows(bench: Bench) -> tuple[Row, ...]:
    """Speed at batch 32 and 1, and size. Accuracies are those on the test images, as the manifest states them."""
    made = portfolio(bench)
    dense = bench.accuracy(bench.dense_file)
    able = {one["name"]: one for one in made["variants"] if one["testPercent"] >= dense - MOST_POINTS}
    files = {"dense file": bench.dense_file, **{name: Path(one["path"]) for name, one in able.items()}}
    found = []
    for batch, measure in ((32, "speed"), (1, "speed-1")):
        times = bench.times(files, batch)
        fastest = min(able, key=lambda name: statistics.median(times[name]))
        value, spread = ratio(times["dense file"], times[fastest])
        detail = {
            "variant": fastest,
            "loss": dense - able[fastest]["testPercent"],
            "milliseconds": 1000 * statistics.median(times[fastest]),
            "published": len(made["variants"]),
        }
        common = {"claim": CLAIM, "net": bench.name, "seed": bench.seed, "detail": detail}
        found.append(Row(measure=measure, value=value, spread=spread, **common))
        if batch == 32:
            size = bench.dense_file.stat().st_size / files[fastest].stat().st_size
            found.append(Row(measure="size", value=size, **common))
    return tuple(found)
