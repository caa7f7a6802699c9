"""Half of a vision transformer by the one-shot route, against the dense model."""

from __future__ import annotations

from benchmarks.variants.bench import Bench
from benchmarks.variants.tables.rows import Row

CLAIM, NAME, PERCENT = "transformer", "half-transformer", 50


def rows(bench: Bench) -> tuple[Row, ...]:
    """Test accuracy lost at half of the MACs; what the route could not prune that far is no answer to the goal."""
    record = bench.one_shot(NAME, (PERCENT,))[str(PERCENT)]
    dense, accuracy = bench.accuracy(bench.dense_file), bench.accuracy(bench.file_path(NAME, PERCENT))
    detail = {"dense": dense, "accuracy": accuracy, "macsPercent": record["macsPercent"], "kept": record["kept"]}
    measure = "loss" if record["reached"] else "loss-not-half"
    return (
        Row(
            claim=CLAIM,
            measure=measure,
            net=bench.name,
            seed=bench.seed,
            value=dense - accuracy,
            detail=detail,
        ),
    )
