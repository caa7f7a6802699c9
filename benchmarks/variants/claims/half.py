"""Half of the multiply-accumulates by the one-shot route, against the dense model."""

from __future__ import annotations

from benchmarks.variants.bench import Bench
from benchmarks.variants.tables.rows import Row

CLAIM, NAME, PERCENTS = "half", "one-shot", (50, 25)


def rows(bench: Bench) -> tuple[Row, ...]:
    """Test accuracy lost at half of the MACs; at a quarter of them too, without a bound."""
    made = bench.one_shot(NAME, PERCENTS)
    dense = bench.accuracy(bench.dense_file)
    found = []
    for percent in PERCENTS:
        record = made[str(percent)]
        accuracy = bench.accuracy(bench.file_path(NAME, percent))
        detail = {
            "dense": dense,
            "accuracy": accuracy,
            "macsPercent": record["macsPercent"],
            "seconds": record["seconds"],
        }
        measure = "loss" if percent == 50 else f"loss-{percent}"
        found.append(
            Row(
                claim=CLAIM,
                measure=measure,
                net=bench.name,
                seed=bench.seed,
                value=dense - accuracy,
                detail=detail,
            )
        )
    return tuple(found)
