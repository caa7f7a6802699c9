"""The Markdown page beside ``scale.json``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


def markdown(results: Json) -> str:
    """The whole page."""
    machine, rows = results["machine"], results["rows"]
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    lines = [
        "# What the operator costs",
        "",
        f"Written by `{results['command']}` from `scale.json`. {machine['processor']}, {machine['logicalCpus']} "
        "logical processors, which etcd, API server, controllers, scheduler, kwok and the process that acts as all "
        f"agents share with the operator; Kubernetes {machine['kubernetes']}, Python {machine['python']}, {packages}.",
        "Nodes exist in the API only; the DaemonSet, its pods, the operator and the rules by which agents report are "
        "real. One portfolio of five variants, steady traffic everywhere; the default times of switching.",
        "",
        "| endpoints | operator's memory, idle (highest), MiB | processor, idle, ms per s | cycles per s, of ms | "
        "operator's writes per s, idle | all writes to ModelEndpoints per s, idle | a changed objective is in all "
        "specs, s | all agents have reported it, s | processor for it, s | contention on a tenth: report to order, "
        "beyond downAfterSeconds, p50 / p95, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_row(entry) for entry in rows),
        "",
        "Loads of the machine (load average before; idle; objective; contention): "
        + "; ".join(
            f"{entry['endpoints']}: {entry['loadAverageBefore']}, "
            + ", ".join(str(entry[phase]["loadAverage"]) for phase in ("idle", "objective", "contention"))
            for entry in rows
        )
        + ". Commits: "
        + ", ".join(f"{entry['endpoints']}: {entry['commit']}" for entry in rows)
        + ".",
        "",
        *_growth(rows),
    ]
    return "\n".join(lines) + "\n"


def _row(entry: Json) -> str:
    idle, objective, contention = entry["idle"], entry["objective"], entry["contention"]
    beyond = contention["beyondDownAfterSeconds"]
    highest = max(idle["peakMebibytes"], objective["peakMebibytes"])
    cells = [
        str(entry["endpoints"]),
        f"{idle['residentMebibytes']:.0f} ({highest:.0f})",
        f"{idle['processorMillisecondsPerSecond']:.1f}",
        f"{idle['cyclesPerSecond']:.2f}, {idle['cycleMilliseconds']:.1f}",
        f"{idle['operatorWritesPerSecond']:.2f}",
        f"{idle['endpointWritesPerSecond']:.2f}",
        f"{objective['allSpecsSeconds']:.2f}",
        f"{objective['allReportsSeconds']:.2f}",
        f"{objective['processorSeconds']:.2f}",
        f"{beyond['p50']:.2f} / {beyond['p95']:.2f} ({contention['endpoints']})",
    ]
    return f"| {' | '.join(cells)} |"


_FIGURES: dict[str, Callable[[Json], float]] = {
    "operator's memory, idle": lambda entry: entry["idle"]["residentMebibytes"],
    "processor, idle": lambda entry: entry["idle"]["processorMillisecondsPerSecond"],
    "operator's writes, idle": lambda entry: entry["idle"]["operatorWritesPerSecond"],
    "all writes to ModelEndpoints, idle": lambda entry: entry["idle"]["endpointWritesPerSecond"],
    "objective in all specs": lambda entry: entry["objective"]["allSpecsSeconds"],
    "objective reported by all": lambda entry: entry["objective"]["allReportsSeconds"],
    "processor for an objective": lambda entry: entry["objective"]["processorSeconds"],
}


def _growth(rows: list[Json]) -> list[str]:
    """How each figure grows against the endpoints: 1 is linear, less is better."""
    if len(rows) < 2:
        return []
    steps = [(few, many) for index, few in enumerate(rows) for many in rows[index + 1 :]]
    heads = [f"{few['endpoints']} to {many['endpoints']}" for few, many in steps]
    lines = [
        "## Against the number of endpoints",
        "",
        "How much a figure *per endpoint* grows from one size to another: 1.00 is linear, less is better than linear. "
        "The rule is that nothing is worse than linear.",
        "",
        f"| figure per endpoint | {' | '.join(heads)} |",
        f"|---|{'---|' * len(steps)}",
    ]
    for name, figure in _FIGURES.items():
        cells = []
        for few, many in steps:
            small, large = figure(few) / few["endpoints"], figure(many) / many["endpoints"]
            cells.append(f"{large / small:.2f}" if small > 0 else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
