"""All plans of a trained VGG-11 of width 64 on images of 64 x 64: accuracy, bytes, weights and time of one net.

    nice -n 15 python benchmarks/split/plans.py [--epochs 2] [--workers 2 3 4] [--layouts Auto Rows Channels]

is `edgefolio split` for a portfolio of this model, for each number of workers and each layout, and writes
``benchmarks/results/split-plans.json`` and ``split-plans.md``. It goes on where it was stopped: the work directory
holds the trained net. Shards are run one after another, whatever the number of workers, and the link is added: the
times are predictions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.over_seeds import say
from benchmarks.split.results import RESULTS, Json, headline, write

from edgefolio.specification import ModelPortfolio
from edgefolio.specification.splitting import equal_shares
from edgefolio_pruner.cli.split import document_of
from edgefolio_pruner.split.result import Link, Question
from edgefolio_pruner.splitting import plan_splits

LAYOUTS = ("Auto", "Rows", "Channels")
LINK = Link(bits_per_second=1e9, round_trip_milliseconds=0.3)


def portfolio(epochs: int, *, width: int, size: int) -> ModelPortfolio:
    """The model, and pruned variants of it to compare with."""
    return ModelPortfolio.model_validate(
        {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "split-plans"},
            "spec": {
                "source": {
                    "architecture": {
                        "library": "edgefolio",
                        "name": "vgg11",
                        "options": {"width": width, "in_channels": 1},
                    }
                },
                "data": {"trainingURI": "builtin:fashion-mnist", "imageSize": size, "calibrationSamples": 1024},
                "methods": {
                    "sparseTraining": {"denseEpochs": epochs, "levels": 0},
                    "oneShot": {"macsPercent": [75, 50, 35]},
                },
                "repository": {"uri": "./portfolios"},
                "serving": {"modelName": "split-plans"},
            },
        }
    )


def main() -> None:
    """Plan and measure, and write the results after each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", nargs="+", type=int, default=[2, 3, 4])
    parser.add_argument(
        "--layouts", nargs="+", choices=["Auto", "Rows", "Channels"], default=["Auto", "Rows", "Channels"]
    )
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--work-dir", type=Path, default=RESULTS.parent / "work" / "split-plans")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    asked = [(workers, layout) for workers in arguments.workers for layout in arguments.layouts]
    documents: list[Json] = []
    for workers, layout in asked:
        say(f"{workers} workers, {layout}")
        report = plan_splits(
            portfolio(arguments.epochs, width=arguments.width, size=arguments.image_size),
            Question(shares=equal_shares(workers), wire="UInt8", layout=layout, link=LINK, most_loss_points=0.5),
            work_directory=arguments.work_dir,
            threads=1,
        )
        documents.append({"layout": layout, **document_of(report)})
        content = {"width": arguments.width, "imageSize": arguments.image_size, "reports": documents}
        write(
            arguments.results,
            "split-plans",
            command="python benchmarks/split/plans.py",
            content=content,
            markdown=_markdown,
        )


def _markdown(content: Json) -> str:
    size = content["imageSize"]
    lines = headline(
        f"Plans of a VGG-11 of width {content['width']} on {size} x {size} pixels",
        content,
        "One sample, one thread for each worker; 1 Gbit/s with a round trip of 0.3 ms are added, not measured.",
    )
    for report in content["reports"]:
        dense = report["dense"]
        lines += ["", f"## {report['workers']} workers, {report['layout']}", "", report["verdict"], ""]
        lines.append("| plan | accuracy | ms | weights | MACs | bytes of the dense float32 exchange | waits |")
        lines.append("|---|---|---|---|---|---|---|")
        for single in report["singleNode"]:
            accuracy = f"{single['validationAccuracyPercent']:.2f} %"
            lines.append(f"| {single['name']}, one node | {accuracy} | {single['p50Milliseconds']:.2f} | | | | |")
        for plan in report["plans"]:
            lines.append(
                f"| {plan['title']} | {plan['validationAccuracyPercent']:.2f} % "
                f"| {plan['predictedMilliseconds']:.2f} (compute {plan['computeMilliseconds']:.2f}, "
                f"own {plan['ownMilliseconds']:.2f}) "
                f"| {100 * plan['parametersOfLargest'] / dense['parameters']:.0f} % "
                f"| {100 * plan['macsOfBusiest'] / dense['macs']:.0f} % "
                f"| {100 * plan['bytesIntoAll'] / dense['bytesOfFloat32Exchange']:.1f} % "
                f"| {plan['synchronisations']} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
