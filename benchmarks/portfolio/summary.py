"""From the runs of all seeds to means with 95 % intervals, and to the ratios that papers quote."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.portfolio.settings import PORTFOLIO
from scipy import stats

Json = dict[str, Any]


def summarize(runs: Sequence[Json]) -> Json:
    """Per network: every variant, and the time to make the portfolio by each route."""
    found: Json = {}
    for network in PORTFOLIO.networks:
        own = [run for run in runs if run["network"] == network.name]
        if own:
            found[network.name] = {
                "width": network.width,
                "seeds": [run["seed"] for run in own],
                "variants": {name: variant(own, name) for name in own[0]["exported"]},
                "making": making(own),
                "trainingSamples": PORTFOLIO.training_samples,
                "denseEpochs": PORTFOLIO.sparse_training.dense_epochs,
                "epochsPerLevel": PORTFOLIO.sparse_training.epochs_per_level,
                "loadAverage": [run["speed"]["loadAverage"] for run in own],
            }
    return found


def variant(runs: Sequence[Json], name: str) -> Json:
    """One variant over the seeds. ``parent``: the same weights, zeros and all, in the dense shape."""
    exported = [run["exported"][name] for run in runs]
    accuracy = [run["accuracy"][name]["own"] for run in runs]
    return {
        "accuracyPercent": mean(accuracy),
        "lossAgainstDensePoints": mean(
            [run["accuracy"]["dense"]["own"] - run["accuracy"][name]["own"] for run in runs]
        ),
        "lossByShrinkingPoints": max(
            abs(run["accuracy"][name]["parent"] - run["accuracy"][name]["own"]) for run in runs
        ),
        "keptWeightsPercent": mean([100 * run["training"].get(name, {}).get("keptWeights", 1.0) for run in runs]),
        "macsPercent": mean([100 * one["macs"] / one["parentMacs"] for one in exported]),
        "parameters": mean([one["parameters"] for one in exported]),
        "bytes": mean([one["bytes"] for one in exported]),
        "parametersSmaller": mean([one["parentParameters"] / one["parameters"] for one in exported]),
        "bytesSmaller": mean([one["parentBytes"] / one["bytes"] for one in exported]),
        "speedUp": {
            batch: {
                "againstParent": ratios(runs, batch, f"{name}/parent", f"{name}/own"),
                "againstDense": ratios(runs, batch, "dense/own", f"{name}/own"),
                "milliseconds": {clock: mean(medians(runs, batch, clock, f"{name}/own")) for clock in ("cpu", "wall")},
            }
            for batch in runs[0]["speed"]["milliseconds"]
        },
    }


def making(runs: Sequence[Json]) -> Json:
    """Processor seconds per portfolio of five by each route, against training each of the five from scratch.

    From scratch: the dense training's seconds times the variant's share of the dense net's step time, for as many
    epochs. ``afterDense`` leaves the dense model out on both sides (it is there, and four variants are wanted).
    """
    routes: Json = {}
    for route, prefix in (("sparse training", "sparse-"), ("one-shot", "oneshot-")):
        rows = [_making(run, prefix) for run in runs]
        routes[route] = {key: mean([row[key] for row in rows]) for key in rows[0]}
    routes["denseTrainingSeconds"] = mean([run["training"]["dense"]["seconds"] for run in runs])
    return routes


def _making(run: Json, prefix: str) -> dict[str, float]:
    names = [name for name in run["exported"] if name.startswith(prefix)]
    dense = run["training"]["dense"]["seconds"]
    steps = run["speed"]["stepSeconds"]
    scratch = sum(dense * steps[name] / steps["dense"] for name in names)
    work = run["training"] if prefix == "sparse-" else run["oneShot"]
    method = sum(work[name]["seconds"] for name in names)
    finish = {name: run["exported"][name]["shrinkSeconds"] + run["exported"][name]["exportSeconds"] for name in names}
    dense_finish = run["exported"]["dense"]["exportSeconds"]
    afterwards = method + sum(finish.values())
    return {
        "seconds": dense + dense_finish + afterwards,
        "scratchSeconds": dense + scratch,
        "faster": (dense + scratch) / (dense + dense_finish + afterwards),
        "afterDenseSeconds": afterwards,
        "afterDenseFaster": scratch / afterwards,
        "shrinkAndExportSeconds": sum(finish.values()),
        "shrinkAndExportFaster": scratch / sum(finish.values()),
    }


def mean(values: Sequence[float]) -> Json:
    """The mean over the seeds, with half the width of its 95 % interval (Student's t; none for one seed)."""
    centre = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": centre, "plusMinus": None}
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": centre, "plusMinus": half}


def ratios(runs: Sequence[Json], batch: str, above: str, below: str) -> Json:
    """Processor time of ``above`` over that of ``below`` within rounds: median per seed, then the mean over the seeds.

    ``low`` and ``high`` are the smallest 10th and the largest 90th percentile of the rounds of any seed.
    """
    middle, low, high = [], [], []
    for run in runs:
        rounds = run["speed"]["milliseconds"][batch]["cpu"]
        values = [first / second for first, second in zip(rounds[above], rounds[below], strict=True)]
        deciles = statistics.quantiles(values, n=10)
        middle.append(statistics.median(values))
        low.append(deciles[0])
        high.append(deciles[-1])
    return {**mean(middle), "low": min(low), "high": max(high)}


def medians(runs: Sequence[Json], batch: str, clock: str, name: str) -> list[float]:
    """The median over the rounds, per seed, in milliseconds."""
    return [statistics.median(run["speed"]["milliseconds"][batch][clock][name]) for run in runs]
