"""The claims, one module each: it gives the rows of one network and seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.variants.bench import Bench
from benchmarks.variants.claims import (
    half,
    int8,
    portfolio,
    sparsest,
    time,
    torch_pruning,
    transformer,
    within_one_point,
)
from benchmarks.variants.tables.goals import CNNS, TRAINED_ON
from benchmarks.variants.tables.rows import Row


@dataclass(frozen=True)
class Claim:
    """What gives the rows, and the networks that it is measured on."""

    rows: Callable[[Bench], tuple[Row, ...]]
    nets: tuple[str, ...] = CNNS


#: In the order in which they are measured: the slow ones last.
MEASURES: Mapping[str, Claim] = {
    half.CLAIM: Claim(half.rows),
    int8.CLAIM: Claim(int8.rows),
    within_one_point.CLAIM: Claim(within_one_point.rows),
    transformer.CLAIM: Claim(transformer.rows, ("vit",)),
    torch_pruning.CLAIM: Claim(torch_pruning.rows),
    time.CLAIM: Claim(time.rows, TRAINED_ON),
    portfolio.CLAIM: Claim(portfolio.rows, TRAINED_ON),
    sparsest.CLAIM: Claim(sparsest.rows, TRAINED_ON),
}
