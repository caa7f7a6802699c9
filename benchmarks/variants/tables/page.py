"""The page beside the results: every claim with its bounds, what was measured, and what is not reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.variants.nets import NETS
from benchmarks.variants.tables.goals import CLAIMS, GOALS, Goal
from benchmarks.variants.tables.rows import LEAST_SEEDS, Cell, Row, cell

Json = dict[str, Any]
UNMEASURED, FEW, MET, AIMED, MISSED = "not measured", "too few seeds", "reached", "aim reached", "**not reached**"


def markdown(document: Json) -> str:
    """The page of a results file."""
    rows = [Row.read(row) for row in document["rows"]]
    machine, versions = document["machine"], document["versions"]
    lines = [
        "# Variants of networks trained to a standstill",
        "",
        f"Written by `{document['command']}` from `variants.json`. {machine['cpuModel']}, {machine['logicalCpus']} "
        f"logical processors, one thread; {', '.join(f'{name} {version}' for name, version in versions.items())}. "
        f"Instruction sets: {', '.join(machine['instructionSets'])}.",
        "",
        f"Fashion-MNIST: {document['trainingSamples']:,} training images drawn by the seed, accuracy on all 10,000 "
        f"test images; {document['calibrationSamples']} training images for calibration, unlabelled (Torch-Pruning's "
        "Taylor and Hessian criteria see their labels). Means over the seeds with 95 % intervals (Student's t). "
        "Times are processor time of one thread; speed-ups are ratios within interleaved rounds, in brackets the "
        f"10th to 90th percentile. A claim needs {LEAST_SEEDS} seeds.",
        "",
        *training(document),
        "",
        "## Claims",
        "",
        *_table(("claim", "network", "must", "aim", "measured", "seeds", "")),
    ]
    for goal in GOALS:
        lines += [_line(goal, net, cell(rows, goal, net), rows) for net in goal.must]
    for claim in CLAIMS:
        lines += details(claim, [row for row in rows if row.claim == claim])
    return "\n".join(lines) + "\n"


def verdict(goal: Goal, net: str, found: Cell | None) -> str:
    """What a goal's line says of what was measured."""
    if found is None:
        return UNMEASURED
    if not goal.met(net, found.mean):
        return MISSED
    if not found.complete:
        return FEW
    aim = goal.aim.get(net)
    aimed = aim is not None and (found.mean <= aim if goal.lower else found.mean >= aim)
    return AIMED if aimed else MET


def training(document: Json) -> list[str]:
    """How the dense networks were trained."""
    rule = document["stopping"]
    lines = [
        f"Training: the rate is divided by 5 when {rule['patienceEpochs']} epochs in a row did not raise the "
        f"validation accuracy by {rule['leastGainPoints']} points, and training ends when that has happened at each of "
        f"{rule['rates']} rates; the weights of the best epoch are kept.",
        "",
        *_table(("network", "seed", "epochs", "best", "processor seconds", "validation, %", "test, %")),
    ]
    for name in NETS:
        for seed, one in document["networks"].get(name, {}).items():
            if seed != "title":
                lines.append(
                    f"| {NETS[name].title} | {seed} | {one['epochs']} | {one['bestEpoch']} "
                    f"| {one['processorSeconds']} | {one['validationPercent']:.2f} | {one['testPercent']:.2f} |"
                )
    return lines


def details(claim: str, rows: Sequence[Row]) -> list[str]:
    """Every row of a claim with what it was made of."""
    if not rows:
        return []
    lines = ["", f"## {claim}, row by row", "", *_table(("network", "seed", "measure", "value", "of"))]
    for row in rows:
        value = f"{row.value:.2f}"
        if row.spread is not None:
            value += f" [{row.spread[0]:.2f}, {row.spread[1]:.2f}]"
        lines.append(f"| {row.net} | {row.seed} | {row.measure} | {value} | {_shown(row.detail)} |")
    return lines


def _line(goal: Goal, net: str, found: Cell | None, rows: Sequence[Row]) -> str:
    bound = "≤" if goal.lower else "≥"
    must = f"{bound} {goal.must[net]:g} {goal.unit}"
    aim = f"{bound} {goal.aim[net]:g}" if net in goal.aim else ""
    measured, seeds = "", ""
    if found is not None:
        half = found.half_width
        measured = f"{found.mean:.2f}" + ("" if half is None else f" ± {half:.2f}")
        spreads = [
            row.spread
            for row in rows
            if (row.claim, row.measure, row.net) == (goal.claim, goal.measure, net) and row.spread is not None
        ]
        if spreads:
            measured += f" [{min(low for low, _ in spreads):.2f}, {max(high for _, high in spreads):.2f}]"
        seeds = ", ".join(map(str, found.seeds))
    verdict_ = verdict(goal, net, found)
    return f"| {goal.title} | {NETS[net].title} | {must} | {aim} | {measured} | {seeds} | {verdict_} |"


def _shown(detail: Any) -> str:
    if isinstance(detail, dict):
        return "; ".join(f"{name} {_shown(value)}" for name, value in detail.items())
    if isinstance(detail, float):
        return f"{detail:.2f}"
    return str(detail)


def _table(headings: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
