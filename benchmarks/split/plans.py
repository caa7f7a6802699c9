"""All plans of a trained VGG-11 of width 64 on images of 64 x 64: accuracy, bytes, weights and time of one net.

    nice -n 15 python benchmarks/split/plans.py [--epochs 2] [--workers 2 3 4]

is `edgefolio split` for a portfolio of this model, for each number of workers, and writes
``benchmarks/results/split-plans.json`` and ``split-plans.md``. It goes on where it was stopped: the work directory
holds the trained net. Shards are run one after another, whatever the number of workers, and the link is added: the
times are predictions. Not here: rows first, then channels.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.over_seeds import say

from edgefolio.specification import ModelPortfolio
from edgefolio.specification.splitting import equal_shares
from edgefolio_pruner.cli.split import document_of
from edgefolio_pruner.profiling.environment import describe_environment
from edgefolio_pruner.split.result import Link, Question
from edgefolio_pruner.splitting import plan_splits

Json = dict[str, Any]
RESULTS = Path(__file__).resolve().parents[1] / "results"
LINK = Link(bits_per_second=1e9, round_trip_milliseconds=0.3)


def portfolio(epochs: int) -> ModelPortfolio:
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
                        "options": {"width": 64, "in_channels": 1},
                    }
                },
                "data": {"trainingURI": "builtin:fashion-mnist", "imageSize": 64, "calibrationSamples": 1024},
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
    parser.add_argument("--work-dir", type=Path, default=RESULTS.parent / "work" / "split-plans")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    documents: list[Json] = []
    for workers in arguments.workers:
        say(f"{workers} workers")
        report = plan_splits(
            portfolio(arguments.epochs),
            Question(shares=equal_shares(workers), wire="UInt8", link=LINK, most_loss_points=0.5),
            work_directory=arguments.work_dir,
            threads=1,
        )
        documents.append(document_of(report))
        _write(arguments.results, documents)


def _write(folder: Path, documents: list[Json]) -> None:
    environment = describe_environment(threads=1, onnxruntime_version=onnxruntime.__version__)
    content = {
        "command": "python benchmarks/split/plans.py",
        "machine": environment.model_dump(mode="json", by_alias=True),
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "reports": documents,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "split-plans.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "split-plans.md").write_text(_markdown(content))
    say(f"wrote {folder / 'split-plans.json'} and its table")


def _markdown(content: Json) -> str:
    lines = [
        "# Plans of a VGG-11 of width 64 on 64 x 64 pixels",
        "",
        f"`{content['command']}`, {content['machine']['cpuModel']}; one sample, one thread for each worker; a link of "
        "1 Gbit/s with a round trip of 0.3 ms is added, not measured.",
    ]
    for report in content["reports"]:
        dense = report["dense"]
        lines += ["", f"## {report['workers']} workers", "", report["verdict"], ""]
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
