"""The assertions that both real and generated networks must pass."""

from __future__ import annotations

import re

import torch
from torch import nn

from edgefolio_pruner.exactness import FLOAT64_BOUND, in_dtype, prove_exact, relative_difference
from edgefolio_pruner.export import flat_outputs
from edgefolio_pruner.spatial import CapturedModel, Compressed, SpatialReport, capture, compress
from exactness_support.mutation import compress_without_heaviest_constant
from exactness_support.oracle import find_removable

#: Operators along the axis of the channels: the compiler keeps all their channels and says so.
DOCUMENTED_BARRIERS = ("convolution along the axis of the channels",)
#: Which channels fill up a group is a choice; the compiler's need not be the oracle's, and neither is the best.
_EQUAL_GROUPS = re.compile(r"equal groups: (\d+)")


def compress_exactly(module: nn.Module, samples: torch.Tensor) -> tuple[CapturedModel, Compressed]:
    """Capture and compress; both bounds must hold."""
    captured = capture(module, (samples[:2],))
    compressed = compress(captured)
    exactness = prove_exact(module, captured, compressed, samples)
    assert exactness.holds, exactness
    return captured, compressed


def assert_mutation_is_noticed(module: nn.Module, captured: CapturedModel, samples: torch.Tensor) -> bool:
    """Drop one folded constant: the float64 bound must break. Whether there was one to drop."""
    captured64 = in_dtype(captured, torch.float64)
    mutated = compress_without_heaviest_constant(captured64)
    if mutated is None:
        return False
    with torch.no_grad():
        truth = flat_outputs(captured64.graph_module(samples.double()))
        wrong = flat_outputs(mutated.module(samples.double()))
    difference = relative_difference(truth, wrong)
    assert difference > 10 * FLOAT64_BOUND, f"a dropped constant changes the outputs by only {difference}"
    return True


def assert_removed_as_the_oracle_says(module: nn.Module, report: SpatialReport, samples: torch.Tensor) -> int:
    """Each layer keeps what is live and no more than the oracle's fewest; how many channels the oracle frees."""
    found = find_removable(module.double(), samples[:2].double())
    module.float()
    layers = {layer.name: layer for layer in report.layers}
    # A barrier keeps its own channels, and through them what is read to make them: all layers up to the last barrier.
    order = [layer.name for layer in report.layers]
    barred = [i for i, layer in enumerate(report.layers) if any(b in layer.kept_because for b in DOCUMENTED_BARRIERS)]
    excused = set(order[: barred[-1] + 1]) if barred else set()
    too_many: list[str] = []
    for name, oracle in found.items():
        kept = layers[name].after
        assert kept >= oracle.live, f"{name}: {kept} kept, but {oracle.live} are live"
        filling = sum(int(count) for count in _EQUAL_GROUPS.findall(layers[name].kept_because))
        if kept > oracle.fewest + filling and name not in excused:
            too_many.append(f"{name}: {kept} kept ({layers[name].kept_because}), but {oracle}")
    assert not too_many, "\n".join(too_many)
    return sum(oracle.channels - oracle.fewest for oracle in found.values())
