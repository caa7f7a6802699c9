"""Accuracy against cross bytes, with every step of the method left out once. Resumable at any point.

    nice -n 15 python benchmarks/split/curves.py [--nets vgg-narrow resnet8] [--seeds 0 1 2]

writes ``benchmarks/results/split.json`` and ``split.md`` after each net and seed. Calibration is 1,024 training
images without labels; accuracy is on all 10,000 test images, at which nothing is chosen. Every plan runs as its masked
net, which the shards equal (``tests/split``); one row runs the shards with the uint8 wire, one the net after an epoch
with masks, towards the dense net's outputs on all training images, again without labels. Pruned models of one node
stand in ``benchmarks/results/variants.md``; rows, and rows until a layer, in ``plans.py``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.over_seeds import say
from benchmarks.split.nets import NETS, trained
from benchmarks.split.results import RESULTS, Json, headline, write
from benchmarks.variants.store import PRODUCT, Store

from edgefolio.specification import DataSpecification
from edgefolio.specification.splitting import equal_shares
from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.data.loading import load_data
from edgefolio_pruner.spatial import capture
from edgefolio_pruner.split.channels.fine_tuning import Tuning
from edgefolio_pruner.split.planned import Recipe, ShapedSplit
from edgefolio_pruner.split.planning import SplitPlanner

CALIBRATION = 1024
KEEPS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.0)
#: What is compared; the last but one is the method.
RECIPES: Mapping[str, Recipe] = {
    "contiguous, magnitude, not adjusted": Recipe(
        restructure=False, swaps=False, second_order=False, adjust=False, relu_aware=False
    ),
    "contiguous, magnitude, adjusted": Recipe(restructure=False, swaps=False, second_order=False, relu_aware=False),
    "contiguous, second order, adjusted": Recipe(restructure=False, swaps=False),
    "without swaps": Recipe(swaps=False),
    "without the ReLU pass": Recipe(relu_aware=False),
    "all steps": Recipe(),
}
ALL = "all steps"


def main() -> None:
    """Run what is missing, and write the results after each net and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", nargs="+", type=int, help="default: those of each net")
    parser.add_argument("--keeps", nargs="+", type=float, default=list(KEEPS))
    parser.add_argument("--work-dir", type=Path, default=RESULTS.parent / "work" / "split")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    finished: list[Json] = []
    for name in arguments.nets:
        for seed in arguments.seeds:
            data = load_data(DataSpecification(training_uri="builtin:fashion-mnist"), seed=seed)
            workers = [count for count in NETS[name][2] if arguments.workers is None or count in arguments.workers]
            finished.append(_of_net(name, seed, data, arguments.work_dir, workers=workers, keeps=arguments.keeps))
            content = {"calibrationSamples": CALIBRATION, "keeps": list(arguments.keeps), "runs": finished}
            write(
                arguments.results,
                "split",
                command="python benchmarks/split/curves.py",
                content=content,
                markdown=_markdown,
            )


def _of_net(
    name: str, seed: int, data: DataBundle, folder: Path, *, workers: Sequence[int], keeps: Sequence[float]
) -> Json:
    net = trained(name, data, seed=seed, folder=folder / "nets")
    store = Store(folder / name / f"seed-{seed}", {"net": name, "seed": seed}, say, f"{name}, seed {seed}")
    calibration = torch.from_numpy(data.calibration(CALIBRATION, seed=seed))
    captured = capture(net, (calibration[:2],))
    result: Json = {"net": name, "seed": seed, "dense": _accuracy(_torch(net), data), "workers": {}}
    for count in workers:

        def work(count: int = count) -> Json:
            planner = SplitPlanner(captured, calibration, shares=equal_shares(count), seed=seed)
            return {title: [_point(planner, keep, recipe, data) for keep in keeps] for title, recipe in RECIPES.items()}

        result["workers"][str(count)] = store.stage(f"{count}-workers", work, code=PRODUCT, keeps=list(keeps))
    return result


def _point(planner: SplitPlanner, keep: float, recipe: Recipe, data: DataBundle) -> Json:
    started = time.perf_counter()
    if recipe == RECIPES[ALL]:
        plan = planner.plan(keep, wire="UInt8", recipe=recipe)
        shaped, executor = plan.shaped, plan.executor()
        assert shaped is not None
        wire = _accuracy(lambda images: executor.run(images).outputs[0], data)
        exchanges = plan.made.plan.synchronisations
        tuned = _masked(planner, planner.tuned(shaped, _one_epoch(data)) if shaped.loses else shaped, data)
    else:
        shaped, wire, exchanges, tuned = planner.shape(keep, recipe=recipe), None, None, None
    return {
        "keep": keep,
        "bytes": shaped.bytes_in,
        "denseBytes": shaped.dense_bytes,
        "accuracy": _masked(planner, shaped, data),
        "accuracyUInt8": wire,
        "accuracyTuned": tuned,
        "exchanges": exchanges,
        "seconds": time.perf_counter() - started,
    }


def _masked(planner: SplitPlanner, shaped: ShapedSplit, data: DataBundle) -> float:
    return _accuracy(_torch(planner.captured.with_state(shaped.state).graph_module), data)


def _one_epoch(data: DataBundle) -> Tuning:
    images = data.train.images
    return Tuning(
        epochs=1,
        samples=len(images),
        read=lambda places: torch.from_numpy(np.ascontiguousarray(images[np.asarray(places)])),
    )


def _torch(module: torch.nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits: np.ndarray = module(torch.from_numpy(images)).numpy()
        return logits

    return run


def _accuracy(run: Callable[[np.ndarray], np.ndarray], data: DataBundle) -> float:
    images, labels = data.test.images, data.test.labels
    right = sum(
        int((run(images[start : start + 250]).argmax(1) == labels[start : start + 250]).sum())
        for start in range(0, len(images), 250)
    )
    return 100 * right / len(images)


def _markdown(content: Json) -> str:
    lines = headline(
        "Accuracy of a split against the bytes that it sends",
        content,
        "Fashion-MNIST, all 10,000 test images; points below the dense net of the same seed, mean over seeds with its "
        "95 % interval (Student's t) from two seeds on. Bytes are a part of the dense float32 exchange of as many "
        "workers.",
    )
    for name in dict.fromkeys(run["net"] for run in content["runs"]):
        runs = [run for run in content["runs"] if run["net"] == name]
        dense = _mean([run["dense"] for run in runs])
        for workers in runs[0]["workers"]:
            tables = [run["workers"][workers] for run in runs]
            lines += ["", f"## {name}, {workers} workers: dense {dense} %, {len(runs)} seeds", ""]
            keeps = content["keeps"]
            lines.append("| bytes kept | " + " | ".join(f"{100 * keep:g} %" for keep in keeps) + " |")
            lines.append("|---" * (len(keeps) + 1) + "|")
            for title in RECIPES:
                lines.append(_row(title, runs, tables, title, "accuracy"))
            lines.append(_row("all steps, uint8 wire (a quarter of the bytes)", runs, tables, ALL, "accuracyUInt8"))
            lines.append(_row("all steps, one epoch with masks", runs, tables, ALL, "accuracyTuned"))
            waits = [_mean([table[ALL][place]["exchanges"] for table in tables]) for place in range(len(keeps))]
            lines.append("| waits, all steps | " + " | ".join(waits) + " |")
    return "\n".join(lines) + "\n"


def _row(label: str, runs: Sequence[Json], tables: Sequence[Json], title: str, figure: str) -> str:
    lost = [
        _mean([run["dense"] - table[title][place][figure] for run, table in zip(runs, tables, strict=True)])
        for place in range(len(tables[0][title]))
    ]
    return f"| {label} | " + " | ".join(lost) + " |"


#: Student's t for 95 %, by degrees of freedom.
_T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776}


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    half = _T.get(len(values) - 1, 1.96) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.2f} ± {half:.2f}"


if __name__ == "__main__":
    main()
