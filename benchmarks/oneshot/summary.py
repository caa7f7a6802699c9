"""From the runs of all seeds to losses and seconds with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.oneshot.settings import ONESHOT
from benchmarks.oneshot.stages import HALF, partner
from benchmarks.portfolio.summary import mean

Json = dict[str, Any]


def summarize(runs: Sequence[Json]) -> Json:
    """Per network: the dense model, and every target by both ways."""
    found: Json = {}
    for network in ONESHOT.networks:
        own = [run for run in runs if run["network"] == network.name]
        if own:
            targets = [HALF, *(f"oneshot-{percent}" for percent in ONESHOT.macs_percents)]
            found[network.name] = {
                "width": network.width,
                "seeds": [run["seed"] for run in own],
                "trainingSamples": ONESHOT.training_samples,
                "denseEpochs": ONESHOT.sparse_training.dense_epochs,
                "calibrationSamples": ONESHOT.calibration_samples,
                "dense": {"accuracyPercent": measured([run["accuracy"]["dense"]["own"] for run in own])},
                "denseTrainingSeconds": measured([run["training"]["dense"]["seconds"] for run in own]),
                "targets": {name: target(own, name) for name in targets},
            }
    return found


def target(runs: Sequence[Json], name: str) -> Json:
    """One target: the one-shot route, and magnitude without a refit."""
    exported = [run["exported"][name] for run in runs]
    return {
        "oneShot": way(runs, name)
        | {
            "kept": [{block: kept for block, (kept, _) in run["oneShot"][name]["kept"].items()} for run in runs],
            "pruneSeconds": measured([run["oneShot"][name]["seconds"] for run in runs]),
            "pruneWallSeconds": measured([run["oneShot"][name]["wallSeconds"] for run in runs]),
            "shrinkAndExportSeconds": measured([one["shrinkSeconds"] + one["exportSeconds"] for one in exported]),
        },
        "magnitude": way(runs, partner(name)) | {"kept": [run["magnitude"][partner(name)]["kept"] for run in runs]},
    }


def way(runs: Sequence[Json], name: str) -> Json:
    """Accuracy, and what is left of the multiply-accumulates."""
    exported = [run["exported"][name] for run in runs]
    accuracy = [run["accuracy"][name]["own"] for run in runs]
    dense = [run["accuracy"]["dense"]["own"] for run in runs]
    return {
        "macsPercent": measured([100 * one["macs"] / one["parentMacs"] for one in exported]),
        "parameters": measured([one["parameters"] for one in exported]),
        "accuracyPercent": measured(accuracy),
        "lossAgainstDensePoints": measured([before - after for before, after in zip(dense, accuracy, strict=True)]),
    }


def measured(values: Sequence[float]) -> Json:
    """The values of all seeds beside their mean and its interval."""
    return {**mean(values), "perSeed": list(values)}
