"""The claims, one module each: it gives the rows of one network and seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.variants.bench import Bench
from benchmarks.variants.claims import half, time, torch_pruning
from benchmarks.variants.tables.goals import CNNS
from benchmarks.variants.tables.rows import Row

MEASURES: Mapping[str, Callable[[Bench], tuple[Row, ...]]] = {
    "half": half.rows,
    "torch-pruning": torch_pruning.rows,
    "time": time.rows,
}
#: The networks that a claim is measured on.
NETS_OF: Mapping[str, tuple[str, ...]] = {"half": CNNS, "torch-pruning": CNNS, "time": ("resnet8", "vgg11")}
