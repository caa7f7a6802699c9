"""Time of five variants after the dense model, against training one of them alone to its accuracy."""

from __future__ import annotations

import statistics

from benchmarks.variants.bench import Bench
from benchmarks.variants.tables.rows import Row
from benchmarks.variants.training.alone import trained_alone

CLAIM, NAME = "time", "five"
PERCENTS = (75, 60, 50, 35, 25)
#: The variant that is trained alone.
ALONE = 50


def rows(bench: Bench) -> tuple[Row, ...]:
    """Processor time per variant (pruning, exact removal, export) against that of training one of them alone."""
    made = bench.one_shot(NAME, PERCENTS)
    own = statistics.fmean(record["seconds"] for record in made.values())
    target = bench.accuracy(bench.file_path(NAME, ALONE), "validation")
    found = trained_alone(bench, made[str(ALONE)], bench.state_path(NAME, ALONE), target)
    detail = {
        "secondsEach": own,
        "aloneSeconds": found["seconds"],
        "target": target,
        "aloneBest": found["best"],
        "aloneEpochs": found["epochs"],
        "aloneReachedIt": found["reached"],
    }
    return (
        Row(
            claim=CLAIM,
            measure="faster",
            net=bench.name,
            seed=bench.seed,
            value=found["seconds"] / own,
            detail=detail,
        ),
    )
