"""What sums of second moments cost and err by, in float32 and float64; tables on standard output.

    python benchmarks/oneshot/sums.py

takes about a minute, and no data. With another version's ``pruner_job`` as ``PYTHONPATH`` it measures that.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial

import torch

from edgefolio_pruner.architectures.resnet import ResNet
from edgefolio_pruner.oneshot import prune_to_targets
from edgefolio_pruner.refit import MomentAccumulator, Moments, SplitMoments, refit_columns

WIDTHS = ((144, 16), (288, 32), (576, 64), (1152, 128), (2304, 256), (5760, 10))
ROWS = 1024


def seconds(work: Callable[[], object]) -> float:
    """The least processor seconds of three tries."""
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def prices() -> None:
    """Processor milliseconds to add a batch of rows, by the width of the map."""
    print(f"| columns | {ROWS} rows: float32, ms | float64 | the accumulator |\n|---|---|---|---|")
    for columns, outputs in WIDTHS:
        inputs, targets = torch.randn(ROWS, columns), torch.randn(ROWS, outputs)

        accumulator = MomentAccumulator(columns=columns, outputs=outputs)
        times = (
            seconds(partial(_products, inputs, targets, torch.float32)),
            seconds(partial(_products, inputs, targets, torch.float64)),
            seconds(partial(accumulator.add, inputs, targets)),
        )
        print(f"| {columns} | " + " | ".join(f"{1000 * value:.1f}" for value in times) + " |", flush=True)


def _products(inputs: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype) -> None:
    rows = inputs.to(dtype)
    torch.zeros(rows.shape[1], rows.shape[1], dtype=dtype).addmm_(rows.T, rows)
    torch.zeros(rows.shape[1], targets.shape[1], dtype=dtype).addmm_(rows.T, targets.to(dtype))


def errors() -> None:
    """The largest relative error of a column's variance, by how far its mean is from zero."""
    print("\n| mean over spread | float32, relative error of a variance | the accumulator |\n|---|---|---|")
    for mean in (0, 1, 10, 100, 1000, 10_000):
        rows = torch.randn(8192, 64, generator=torch.Generator().manual_seed(0)) + mean
        exact = rows.double().var(0, correction=0) * len(rows)
        gram = torch.zeros(64, 64)
        accumulator = MomentAccumulator(columns=64, outputs=1)
        for batch in rows.split(ROWS):
            gram.addmm_(batch.T, batch)
            accumulator.add(batch, batch[:, :1])
        plain = gram.double().diagonal() - rows.sum(0, dtype=torch.float64).square() / len(rows)
        found = accumulator.moments().centred().gram.diagonal()
        shown = [f"{float(((value - exact) / exact).abs().max()):.0e}" for value in (plain, found)]
        print(f"| {mean} | " + " | ".join(shown) + " |")


def route() -> None:
    """Processor seconds of the one-shot route on a network as wide as that of the benchmark."""
    torch.manual_seed(0)
    module, images = ResNet(1, width=32, num_classes=10, in_channels=1), torch.randn(512, 1, 28, 28)
    with torch.no_grad():
        module.train()(images)
    taken = seconds(
        lambda: prune_to_targets(module=module.eval(), calibration=images, macs_percents=(50,), seed=0, threads=1)
    )
    print(f"ResNet-8 of width 32, half of the multiply-accumulates: {taken:.2f} s\n")


def wide() -> None:
    """Processor seconds and memory of the widest map."""
    columns, outputs = WIDTHS[-1]
    start = time.process_time()
    refit_columns(
        SplitMoments(fit=_moments(columns, outputs, seed=0), held_out=_moments(columns, outputs, seed=1)),
        prior=torch.randn(columns, outputs, dtype=torch.float64),
        kept=torch.arange(columns),
        intercept=True,
        min_rows_per_column=0,
    )
    taken, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{columns} columns, {2 * ROWS} rows, summed and re-fitted: {taken:.1f} s, {peak:.0f} MiB at most")


def _moments(columns: int, outputs: int, *, seed: int) -> Moments:
    accumulator = MomentAccumulator(columns=columns, outputs=outputs)
    rows = torch.randn(ROWS, columns, generator=torch.Generator().manual_seed(seed))
    accumulator.add(rows, rows[:, :outputs])
    return accumulator.moments()


if __name__ == "__main__":
    torch.set_num_threads(1)
    wide()
    route()
    prices()
    errors()
