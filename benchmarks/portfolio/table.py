"""The Markdown page beside ``portfolio.json``: tables, the paper's figures, and what cannot be compared."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def origin(results: Json, *, file: str) -> str:
    """Where the figures of a page come from."""
    machine, versions = results["machine"], results["versions"]
    return (
        f"Written by `{results['command']}` from `{file}`. {machine['cpuModel']}, {machine['logicalCpus']} "
        f"logical processors, one thread; torch {versions['torch']}, onnxruntime {versions['onnxruntime']}."
    )


def markdown(results: Json) -> str:
    """The whole page."""
    lines = [
        "# Portfolios by both routes",
        "",
        origin(results, file="portfolio.json"),
        "Fashion-MNIST: accuracy on all 10,000 test images, through the exported ONNX files. Means over the seeds with "
        "95 % intervals (Student's t). The machine was busy, so times are processor time of the one thread that works; "
        "wall times are in the JSON. Speed-ups are ratios within interleaved rounds: median, in brackets the 10th to "
        "90th percentile over all rounds and seeds. *Parent*: the same weights, zeros and all, in the dense shape.",
        "",
    ]
    for name, network in results["networks"].items():
        lines += [f"## {name}, width {network['width']}, seeds {', '.join(map(str, network['seeds']))}", ""]
        lines += [
            f"{network['trainingSamples']:,} training images, {network['denseEpochs']} epochs for the dense model, "
            f"{network['epochsPerLevel']} more per sparse level: sparse models have been trained for longer than the "
            "dense model that they are compared with, one-shot models not at all.",
            "",
        ]
        lines += [*variants(network), "", *making(network["making"]), ""]
        loads = ", ".join(f"{value:.1f}" for value in network["loadAverage"])
        lines += [f"Load average of the machine while latency was measured, per seed: {loads}.", ""]
    lines += paper(results["networks"])
    return "\n".join(lines) + "\n"


def variants(network: Json) -> list[str]:
    """One row per variant."""
    batches = list(next(iter(network["variants"].values()))["speedUp"])
    large = batches[-1]
    lines = [
        "| variant | accuracy, % | against dense, points | weights kept, % | MACs, % | parameters | smaller than "
        f"parent (parameters, bytes) | ms, batch {large} | faster than parent, batch {large} | faster than dense, "
        f"batch {large} | faster than dense, batch 1 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in network["variants"].items():
        speed = found["speedUp"][large]
        cells = [
            name,
            with_interval(found["accuracyPercent"], 2),
            with_interval(
                {**found["lossAgainstDensePoints"], "mean": 0.0 - found["lossAgainstDensePoints"]["mean"]}, 2
            ),
            f"{found['keptWeightsPercent']['mean']:.0f}" if not name.startswith("oneshot") else "",
            f"{found['macsPercent']['mean']:.0f}",
            f"{found['parameters']['mean']:,.0f}",
            f"{found['parametersSmaller']['mean']:.2f}x, {found['bytesSmaller']['mean']:.2f}x",
            f"{speed['milliseconds']['cpu']['mean']:.2f}",
            _ratio(speed["againstParent"]),
            _ratio(speed["againstDense"]),
            _ratio(found["speedUp"][batches[0]]["againstDense"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    worst = max(found["lossByShrinkingPoints"] for found in network["variants"].values())
    return [*lines, "", f"Largest change of accuracy by the exact pruning itself: {worst:.2f} points."]


def making(routes: Json) -> list[str]:
    """The time to make five variants."""
    lines = [
        "| route | five variants, s | training each from scratch, s | faster | after the dense model: four variants, s "
        "| faster | shrinking and exporting alone, s | faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for route in ("sparse training", "one-shot"):
        found = routes[route]
        lines.append(
            f"| {route} | {found['seconds']['mean']:.0f} | {found['scratchSeconds']['mean']:.0f} | "
            f"{found['faster']['mean']:.2f}x | {found['afterDenseSeconds']['mean']:.0f} | "
            f"{found['afterDenseFaster']['mean']:.1f}x | {found['shrinkAndExportSeconds']['mean']:.0f} | "
            f"{found['shrinkAndExportFaster']['mean']:.0f}x |"
        )
    lines += [
        "",
        "From scratch is an estimate: the dense training's time, as many epochs, times the shrunk net's share of the "
        "dense net's measured time per optimizer step. It was not run, so it says nothing about the accuracy that "
        "training from scratch would reach.",
    ]
    return lines


def paper(networks: Json) -> list[str]:
    """DNNShifter's five ratios beside the nearest thing measured here."""
    command = "`python benchmarks/portfolio/run.py`"
    rows = [
        "| paper (DNNShifter) | nearest figure here | command | not comparable because |",
        "|---|---|---|---|",
    ]
    faster, smaller, speed = [], [], []
    for name, network in networks.items():
        routes = network["making"]
        faster.append(
            f"{name}: five variants {routes['one-shot']['faster']['mean']:.1f}x (one-shot), "
            f"{routes['sparse training']['faster']['mean']:.1f}x (sparse training); four after the dense model "
            f"{routes['one-shot']['afterDenseFaster']['mean']:.0f}x; shrinking and exporting alone "
            f"{routes['sparse training']['shrinkAndExportFaster']['mean']:.0f}x"
        )
        sparse = {key: found for key, found in network["variants"].items() if key.startswith("sparse-")}
        last = list(sparse)[-1]
        smaller.append(
            f"{name}, {last}: {sparse[last]['parametersSmaller']['mean']:.2f}x parameters, "
            f"{_points(sparse[last])} points"
        )
        batches = list(sparse[last]["speedUp"])
        speed.append(f"{name}, {last}: {_ratio(sparse[last]['speedUp'][batches[-1]]['againstParent'])}")
    rows += [
        f"| 93x faster to make variants than conventional training | {'; '.join(faster)} | {command} | the paper's "
        "baseline, nets and unit could not be found; ours is the estimated training of every variant alone, for the "
        "few epochs used here; with long trainings the ratios after the dense model grow in proportion |",
        f"| 5.14x smaller than sparse models | {'; '.join(smaller)} | {command} | the paper: VGG-16 on CIFAR-10, "
        "256x sparsity by single weights, against the dense net with its batch norms; here narrow nets, Fashion-MNIST, "
        "channel groups, four levels |",
        f"| 1.67x faster than sparse models | {'; '.join(speed)} | {command} | other nets, runtime and processor; the "
        "paper's figure comes from few single batches, ours from interleaved rounds at batch 32 |",
        "| 11.9x less switching overhead | see `benchmarks/results/switching.json` | `benchmarks/switching` | the "
        "paper's baseline is not known |",
        "| 3.8x less memory | see `benchmarks/results/switching.json` | `benchmarks/switching` | the paper's baseline "
        "is not known; ours is one served variant against all variants resident |",
    ]
    return ["## Beside the paper's figures", "", *rows]


def _points(found: Json) -> str:
    return f"{0.0 - found['lossAgainstDensePoints']['mean']:+.2f}"


def with_interval(value: Json, digits: int) -> str:
    """The mean and half the width of its interval."""
    spread = "" if value["plusMinus"] is None else f" ± {value['plusMinus']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"


def _ratio(value: Json) -> str:
    return f"{value['mean']:.2f}x [{value['low']:.2f}, {value['high']:.2f}]"
