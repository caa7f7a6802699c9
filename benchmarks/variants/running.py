"""A run: claims over networks and seeds, the results file written after each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.over_seeds import RESULTS, say
from benchmarks.variants.bench import Bench
from benchmarks.variants.claims import MEASURES
from benchmarks.variants.data import data_of
from benchmarks.variants.nets import NETS
from benchmarks.variants.store import Store
from benchmarks.variants.tables.page import markdown
from benchmarks.variants.tables.plots import draw
from benchmarks.variants.tables.results import PATH, Results
from benchmarks.variants.training.standstill import train, trained
from benchmarks.variants.training.stopping import Standing

WORK = RESULTS.parent / "work" / "variants"


def measure_all(claims: Sequence[str], nets: Sequence[str], seeds: Sequence[int], *, work: Path = WORK) -> None:
    """Measure ``claims`` on the networks that are trained; those that are not are named and left out."""
    results = Results()
    for seed in seeds:
        for name in nets:
            wanted = [claim for claim in claims if name in MEASURES[claim].nets]
            dense = trained(name, NETS[name], seed)
            if not wanted:
                continue
            if dense is None:
                say(f"{name}, seed {seed}: not trained yet; left out (python -m benchmarks.variants train)")
                continue
            store = Store(
                folder=work / name / f"seed-{seed}",
                key={"trained": dense.digest},
                say=say,
                label=f"{name}, seed {seed}",
            )
            bench = Bench(name=name, net=NETS[name], seed=seed, data=data_of(seed), trained=dense, store=store)
            results.describe(name, seed, dense, test=bench.accuracy(bench.dense_file))
            for claim in wanted:
                results.replace(claim, name, seed, MEASURES[claim].rows(bench))
                write_page(results)


def write_page(results: Results) -> None:
    """The page and the plots of what is in the results file."""
    PATH.with_suffix(".md").write_text(markdown(results.document()))
    draw(results.rows, PATH.parent)


def train_all(nets: Sequence[str], seeds: Sequence[int]) -> None:
    """Train what is missing: the convolutional networks seed by seed, the slow transformer last."""
    order = sorted(((name, seed) for name in nets for seed in seeds), key=lambda pair: (pair[0] == "vit", pair[1]))
    for name, seed in order:
        if trained(name, NETS[name], seed) is not None:
            say(f"{name}, seed {seed}: trained before")
            continue

        def report(standing: Standing, accuracy: float, last: bool, name: str = name, seed: int = seed) -> None:
            state = "done" if last else f"rate stage {standing.stage + 1}"
            say(f"{name}, seed {seed}: epoch {standing.epoch}, {accuracy:.2f} %, best {standing.best:.2f} %, {state}")

        train(name, NETS[name], seed, data_of(seed), report=report)
