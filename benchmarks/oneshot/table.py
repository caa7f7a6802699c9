"""The Markdown page beside ``oneshot.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.oneshot.stages import HALF
from benchmarks.portfolio.table import origin, with_interval

Json = dict[str, Any]


def markdown(results: Json) -> str:
    """The whole page."""
    lines = ["# One-shot pruning with refit", "", origin(results, file="oneshot.json"), ""]
    for name, network in results["networks"].items():
        lines += [
            f"{name}, width {network['width']}, Fashion-MNIST, seeds {', '.join(map(str, network['seeds']))}: trained "
            f"for {network['denseEpochs']} epochs on {network['trainingSamples']:,} images, then pruned with "
            f"{network['calibrationSamples']} unlabelled training images and no training. Accuracy on all 10,000 test "
            "images, through the exported ONNX files; no setting was chosen by looking at them. A seed stands for the "
            "weights before training, the images drawn for it and those for calibration. Means over the seeds with "
            "95 % intervals (Student's t).",
            "",
            f"Dense: {with_interval(network['dense']['accuracyPercent'], 2)} % "
            f"({_seeds(network['dense']['accuracyPercent'])}), trained in "
            f"{network['denseTrainingSeconds']['mean']:.0f} s.",
            "",
            *accuracy(network),
            "",
            *seconds(network),
        ]
    return "\n".join(lines) + "\n"


def accuracy(network: Json) -> list[str]:
    """What both ways lose."""
    lines = [
        "| target | way | inner channels kept per block | MACs left, % | accuracy, % | points below dense | per seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in network["targets"].items():
        for way, label in (("oneShot", "one-shot"), ("magnitude", "magnitude, no refit")):
            result = found[way]
            cells = [
                _label(name),
                label,
                _channels(result["kept"]),
                f"{result['macsPercent']['mean']:.1f}",
                with_interval(result["accuracyPercent"], 2),
                with_interval(result["lossAgainstDensePoints"], 2),
                _seeds(result["lossAgainstDensePoints"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "*Magnitude*: the filters of smallest L2 norm go, nothing else is changed; it keeps as many channels in every "
        "block as the one-shot variant above it. *Half of every block*: the route's selection and refit, but not its "
        "shares. All others: the route as it is called; it may keep so many multiply-accumulates (51 %: what half of "
        "every block leaves, rounded down), shares them out itself and rounds channels down to multiples of 4 or 8.",
    ]


def seconds(network: Json) -> list[str]:
    """What one variant costs, beside the prototype."""
    lines = [
        "| target | pruning and refit, s | shrinking with ONNX export, s |",
        "|---|---|---|",
    ]
    for name, found in network["targets"].items():
        result = found["oneShot"]
        lines.append(
            f"| {_label(name)} | {with_interval(result['pruneSeconds'], 1)} | "
            f"{with_interval(result['shrinkAndExportSeconds'], 1)} |"
        )
    return [
        *lines,
        "",
        "Processor seconds of the one thread (wall seconds are in the JSON; the machine was shared). The first two "
        "are calls of their own, the others are one call, each with its share of that. The prototype of this route "
        "took 17-32 s in all on one busy core, for the same net, as many images and two targets; with half of the "
        "inner channels it went from 91.2 to 90.7 %, and magnitude to 23.7 % (one seed, 4,000 test images).",
    ]


def _label(name: str) -> str:
    target = name.partition("-")[2]
    return "half of every block" if name == HALF else f"{target} % of the MACs"


def _channels(kept: Sequence[Json]) -> str:
    """The counts of each block, once for all seeds that agree."""
    counts = [", ".join(map(str, blocks.values())) for blocks in kept]
    return " / ".join(dict.fromkeys(counts))


def _seeds(value: Json) -> str:
    return ", ".join(f"{one:.2f}" for one in value["perSeed"])
