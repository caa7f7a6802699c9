"""Accuracy against cross bytes, with every step of the method left out once. Resumable at any point.

    nice -n 15 python benchmarks/split/curves.py [--nets vgg-narrow resnet8] [--seeds 0 1 2]

writes ``benchmarks/results/split.json`` and ``split.md`` after each net and seed; what is finished for a net, a seed, a
number of workers and a recipe is not run again. Calibration is 1,024 training images without labels; accuracy is on all
10,000 test images, at which nothing is chosen. Every plan runs as its masked net, which the shards equal
(``tests/split``); one row runs the shards with the uint8 wire, one the narrow net after an epoch with masks, towards
the dense net's outputs on all training images, again without labels (such an epoch changes nothing in the dense net).
The first row of each table are pruned models of one node. Rows until a layer, and times, are in ``plans.py``.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.over_seeds import say
from benchmarks.split.nets import NETS, trained
from benchmarks.split.results import RESULTS, Json, headline, write
from benchmarks.variants.store import Store

from edgefolio.errors import UserError
from edgefolio.specification import DataSpecification
from edgefolio.specification.splitting import equal_shares
from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.data.loading import load_data
from edgefolio_pruner.oneshot import prune_to_targets
from edgefolio_pruner.spatial import capture
from edgefolio_pruner.split.channels.fine_tuning import Tuning
from edgefolio_pruner.split.cutting import cuts_of
from edgefolio_pruner.split.planned import Recipe, ShapedSplit
from edgefolio_pruner.split.planning import SplitPlanner

CALIBRATION = 1024
KEEPS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.0)
#: Where the method is compared with others, and with itself less a step.
COMPARED = (0.3, 0.2, 0.1, 0.0)
#: The net with little to spare: the one that is tuned.
TUNED = "vgg-narrow"
MACS_PERCENT = (75, 50, 35, 25)
#: What a plan depends on.
_PRODUCT = "pruner_job/edgefolio_pruner"
PLANNING = (
    *(f"{_PRODUCT}/{room}" for room in ("calibrating", "refit", "spatial", "split")),
    "portfolio/edgefolio_split",
)
ONE_NODE = tuple(f"{_PRODUCT}/{room}" for room in ("calibrating", "refit", "spatial", "oneshot"))
#: What is compared; the last is the method.
RECIPES: Mapping[str, Recipe] = {
    "contiguous, magnitude, not adjusted": Recipe(
        restructure=False, swaps=False, second_order=False, adjust=False, relu_aware=False
    ),
    "contiguous, magnitude, adjusted": Recipe(restructure=False, swaps=False, second_order=False, relu_aware=False),
    "contiguous, second order, adjusted": Recipe(restructure=False, swaps=False),
    "without swaps": Recipe(swaps=False),
    "without second order": Recipe(second_order=False),
    "without adjusting": Recipe(adjust=False, relu_aware=False),
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
    result["oneNode"] = store.stage(
        "one-node", lambda: _one_node(net, calibration, data, seed), code=ONE_NODE, percents=list(MACS_PERCENT)
    )
    for count in workers:
        # Surveyed once, if anything is missing.
        planner = cache(partial(SplitPlanner, captured, calibration, shares=equal_shares(count), seed=seed))
        result["workers"][str(count)] = _of_workers(count, planner, store, data, keeps, tune=name == TUNED)
    return result


def _of_workers(
    count: int,
    planner: Callable[[], SplitPlanner],
    store: Store,
    data: DataBundle,
    keeps: Sequence[float],
    *,
    tune: bool,
) -> Json:
    """All recipes for one number of workers, and what ways cost that lose nothing."""
    tables: Json = {}
    for title, recipe in RECIPES.items():
        points = [keep for keep in keeps if title == ALL or keep in COMPARED]

        def work(recipe: Recipe = recipe, points: Sequence[float] = points) -> Json:
            return {"points": [_point(planner(), keep, recipe, data, tune=tune) for keep in points]}

        stage = f"{count}-workers-{title.replace(' ', '-').replace(',', '')}"
        tables[title] = store.stage(stage, work, code=PLANNING, keeps=points)["points"]
    lossless = store.stage(f"{count}-workers-lossless", lambda: _lossless(planner()), code=PLANNING)
    return {"recipes": tables, "lossless": lossless}


def _one_node(net: torch.nn.Module, calibration: torch.Tensor, data: DataBundle, seed: int) -> Json:
    """The net pruned for one node by the one-shot route: accuracy, and the part of its work that is left."""
    try:
        found = prune_to_targets(module=net, calibration=calibration, macs_percents=MACS_PERCENT, seed=seed, threads=1)
    except UserError as error:
        return {"refused": error.problem, "variants": []}
    variants = []
    for result in found:
        pruned = copy.deepcopy(net)
        pruned.load_state_dict(result.state)
        left = result.macs_percent_reached
        variants.append({"macsPercent": left, "accuracy": _accuracy(_torch(pruned.eval()), data)})
    return {"variants": variants}


def _lossless(planner: SplitPlanner) -> Json:
    """Bytes of ways that lose nothing: by rows, and of a pipeline, whose stages hand on the smallest maps there are."""
    try:
        rows: int | None = planner.by_rows().bytes_in
    except UserError:
        rows = None
    maps = sorted(4 * int(np.prod(cut.behind.input_shapes[0])) for cut in cuts_of(planner.captured))
    stages = planner.workers - 1
    return {
        "denseBytes": planner.dense_bytes,
        "rows": rows,
        "pipeline": sum(maps[:stages]) if len(maps) >= stages else None,
    }


def _point(planner: SplitPlanner, keep: float, recipe: Recipe, data: DataBundle, *, tune: bool) -> Json:
    started = time.perf_counter()
    wire = exchanges = tuned = None
    if recipe == RECIPES[ALL]:
        plan = planner.plan(keep, wire="UInt8", recipe=recipe)
        shaped, executor = plan.shaped, plan.executor()
        assert shaped is not None
        wire = _accuracy(lambda images: executor.run(images).outputs[0], data)
        exchanges = plan.made.plan.synchronisations
        if tune:
            tuned = _masked(planner, planner.tuned(shaped, _one_epoch(data)) if shaped.loses else shaped, data)
    else:
        shaped = planner.shape(keep, recipe=recipe)
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
            tables = [run["workers"][workers]["recipes"] for run in runs]
            lines += ["", f"## {name}, {workers} workers: dense {dense} %, {len(runs)} seeds", ""]
            keeps = content["keeps"]
            lines.append("| bytes kept | " + " | ".join(f"{100 * keep:g} %" for keep in keeps) + " |")
            lines.append("|---" * (len(keeps) + 1) + "|")
            lines.append(_one_node_row(runs, len(keeps)))
            for title in RECIPES:
                lines.append(_row(title, runs, tables, title, "accuracy", keeps))
            lines.append(
                _row("all steps, uint8 wire (a quarter of the bytes)", runs, tables, ALL, "accuracyUInt8", keeps)
            )
            if name == TUNED:
                lines.append(_row("all steps, one epoch with masks", runs, tables, ALL, "accuracyTuned", keeps))
            waits = [_mean([table[ALL][place]["exchanges"] for table in tables]) for place in range(len(keeps))]
            lines.append("| waits, all steps | " + " | ".join(waits) + " |")
            lines += ["", _lossless_line(runs[0]["workers"][workers]["lossless"])]
    return "\n".join(lines) + "\n"


def _one_node_row(runs: Sequence[Json], columns: int) -> str:
    """Models of one node that send nothing, by what is left of the work; one text over the columns."""
    cells = []
    for place in range(min(len(run["oneNode"]["variants"]) for run in runs)):
        found = [(run["dense"], run["oneNode"]["variants"][place]) for run in runs]
        lost = _mean([dense - variant["accuracy"] for dense, variant in found])
        cells.append(f"{statistics.mean(variant['macsPercent'] for _, variant in found):.0f} % of the MACs: {lost}")
    text = ", ".join(cells) or runs[0]["oneNode"]["refused"]
    return f"| one node, pruned (no bytes) | {text}" + " |" * columns


def _lossless_line(found: Json) -> str:
    def part(name: str) -> str:
        return "none" if found[name] is None else f"{100 * found[name] / found['denseBytes']:.1f} % of the bytes"

    return (
        f"Nothing lost: by rows {part('rows')}, every worker with all weights; a pipeline {part('pipeline')} at least, "
        "which answers no sooner; whole copies none, which share load and not one answer."
    )


def _row(
    label: str, runs: Sequence[Json], tables: Sequence[Json], title: str, figure: str, keeps: Sequence[float]
) -> str:
    cells = []
    for keep in keeps:
        points = [next((point for point in table[title] if point["keep"] == keep), None) for table in tables]
        figures = [(run["dense"], point) for run, point in zip(runs, points, strict=True) if point is not None]
        cells.append(_mean([dense - point[figure] for dense, point in figures]) if figures else "")
    return f"| {label} | " + " | ".join(cells) + " |"


#: Student's t for 95 %, by degrees of freedom.
_T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776}


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    half = _T.get(len(values) - 1, 1.96) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.2f} ± {half:.2f}"


if __name__ == "__main__":
    main()
