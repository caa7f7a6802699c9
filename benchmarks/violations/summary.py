"""From runs to the table of the page. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

Runs = Mapping[str, Mapping[str, Any]]

#: t of a 95 % interval by degrees of freedom.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
#: Stories that answer a question of their own and are in no sum.
_APART = ("onsets", "steady")
NAMES = {
    "edgefolio": "**Edgefolio**",
    "before": "Edgefolio before (no standby, window of 5 s)",
    "largest": "fixed largest",
    "smallest": "fixed smallest",
    "threshold": "reactive threshold",
    "infadapter": "InfAdapter's rule",
    "proteus": "Proteus' rule",
    "oracle": "oracle",
}
#: What the tables do not say by themselves.
_READING = (
    "- A mean over stories and objectives, each the same weight. Where no variant meets the objective nobody does: the",
    "  fastest one here is 2.7 times as fast as the slowest.",
    "- InfAdapter and Proteus stand for our own simplified form of their rules, not checked against the papers",
    "  (`benchmarks/violations/policies.py`",
    "  says what was simplified), not for their code: they provide for demand and know of no neighbour, and by its",
    "  profile the largest variant was mostly enough for the demand here.",
    "- The reactive threshold knows every latency, which counters do not show. It has fewer slow requests and",
    "  less accuracy than Edgefolio, and nothing bounds its switches.",
    "- In virtual time no agent competes with the neighbour for the processor. `--triton` is for that;",
    "  it has not been run.",
    "- The stories were made beside the rules. With 15 requests a second and neighbours up to six times",
    "  as slow some 10 % of the requests were slow in the neighbours' story, and accuracy was 0.9 points below the",
    "  oracle's; with 12 a second the steady story had four needless downshifts an hour. Seeds 0 to 2 were seen while",
    "  the rules were made; those from 7 on (`--first-seed 7`) were not.",
)


def summarized(runs: Runs) -> dict[str, Any]:
    """By story and objective, by policy: the figures over the seeds; and over all stories."""
    found: dict[str, dict[str, Any]] = {}
    for key in runs:
        story, objective, policy, _ = key.split("/")
        name = f"{story}, {objective}"
        found.setdefault(name, {})[policy] = _figures(_of(runs, story, objective, policy))
    everything = {
        policy: _figures(
            [run for key, run in runs.items() if key.split("/")[2] == policy and key.split("/")[0] not in _APART]
        )
        for policy in NAMES
    }
    return {"stories": found, "all": {policy: figures for policy, figures in everything.items() if figures}}


def markdown(content: Mapping[str, Any]) -> str:
    """The page."""
    summary, where = content["summary"], content["machine"]
    total = summary["all"]
    lines = [
        "# Requests slower than the objective",
        "",
        f"`{content['command']}` at {where['commit']}; Python {where['python']}. Virtual time: one server, first come "
        "first served, with the measured accuracies and times of VGG-11's variants (`portfolio.json`, six batches "
        "of 32: "
        + ", ".join(
            f"{entry['name']} {entry['accuracy_percent']:.2f} %, {entry['mean_milliseconds']:.1f} ms"
            for entry in content["variants"]
        )
        + ") and the measured times of switches (`switching.json`). Every policy sees the same requests, pays the same "
        "for a switch, and begins with the most accurate variant. P95 objectives: "
        + " and ".join(
            f"{factor} times the most accurate variant's time ({name})"
            for name, factor in content["objectives"].items()
        )
        + f"; {_seeds(content['runs'])} seeds, mean ± half of a 95 % interval. Default settings.",
        "",
    ]
    if "trace" in content:
        trace = content["trace"]
        lines += [
            f"`file`: lines {trace['lines'][0]:,} to {trace['lines'][1]:,} of a day of requests (sha256 "
            f"`{trace['sha256'][:16]}…`), scaled to {trace['meanRequestsPerSecond']:g} a second on average; a "
            "neighbour makes the node three times slower for 30 s every three minutes.",
            "",
        ]
    if "triton" in content:
        lines += ["## On a real Triton", "", *_real(content["triton"]), ""]
    lines += [
        "## All stories",
        "",
        *_table(total),
        "",
        *_READING,
        "",
        "## Claims",
        "",
        *_claims(content),
        "",
        "## By story",
        "",
    ]
    for name, policies in summary["stories"].items():
        story = name.split(",")[0]
        about = content["stories"].get(story)
        lines += [f"### {name}", "", *([about, ""] if about else []), *_table(policies), ""]
    return "\n".join(lines).rstrip() + "\n"


def _claims(content: Mapping[str, Any]) -> list[str]:
    summary = content["summary"]
    total, found = summary["all"], summary["stories"]
    ours, largest, oracle = (total.get(name) for name in ("edgefolio", "largest", "oracle"))
    rows: list[tuple[str, str, str]] = []
    if ours and largest and oracle:
        rows += [
            (
                "requests slower than the objective, against fixed largest",
                "10x fewer (20x)",
                f"{_ratio(largest['slowPercent'], ours['slowPercent'])}x fewer",
            ),
            (
                "the same, against the oracle's",
                "at most 2x (1.3x)",
                f"{_ratio(ours['slowPercent'], oracle['slowPercent'])}x",
            ),
            (
                "mean accuracy served, below the oracle's",
                "at most 0.5 point (0.2)",
                f"{oracle['accuracyPercent']['mean'] - ours['accuracyPercent']['mean']:.2f} points",
            ),
            ("p95 and p99 against fixed largest", "lower, everywhere", _everywhere(found)),
        ]
    for objective in content["objectives"]:
        left = sorted(
            seconds
            for key, run in content["runs"].items()
            if key.startswith(f"onsets/{objective}/edgefolio/")
            for seconds in run["leftSeconds"]
        )
        if not left:
            continue
        p95 = left[min(len(left) - 1, int(0.95 * len(left)))]
        rows.append(
            (
                "onset of contention (3 to 3.5 times slower) until the last answer of the old variant, p95; "
                f"{objective} objective",
                "1.2 s (0.7 s)",
                f"{p95:.2f} s over {len(left)} onsets (median {statistics.median(left):.2f} s)",
            )
        )
    steady = [(name, entry["edgefolio"]) for name, entry in found.items() if name.startswith("steady")]
    for name, entry in steady:
        rows.append(
            (
                f"needless downshifts, {name}",
                "at most 1 an hour (0 a day)",
                f"{entry['downshiftsPerHour']['mean']:.2f} an hour",
            )
        )
    if "observation" in content:
        cost = content["observation"]
        server = cost["serverPercentOfACore"]
        rows.append(
            (
                "observation four times a second (real Triton)",
                "below 1 % of a core",
                f"{cost['agentPercentOfACore']:.2f} % in the agent, "
                f"{server['with'] - server['without']:.2f} % in the server",
            )
        )
    return ["| claim | must (aim) | reached |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]


def _real(content: Mapping[str, Any]) -> list[str]:
    lines = [
        f"What `make demo` made, default settings, objective {content['objectiveMilliseconds']} ms; a neighbour of two "
        f"busy processes comes {content['onsets']} times to each server.",
        "",
        "| server | requests | failed, wrong | slower than the objective, % | mean accuracy, % | p95, ms | p99, ms | "
        "onset until the last answer of the old variant, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in content["servers"].items():
        left = ", ".join(f"{seconds:.2f}" for seconds in found["leftSeconds"])
        lines.append(
            f"| {name} | {found['requests']} | {found['failed']}, {found['wrongVersion']} "
            f"| {found['slowPercent']:.1f} | "
            f"{found['accuracyPercent']:.2f} | {found['p95']:.0f} | {found['p99']:.0f} | {left} |"
        )
    return lines


def _everywhere(found: Mapping[str, Mapping[str, Any]]) -> str:
    compared = {name: entry for name, entry in found.items() if "largest" in entry and "edgefolio" in entry}
    worse = [
        f"{name} ({what})"
        for name, entry in compared.items()
        for what in ("p95", "p99")
        if entry["edgefolio"][what]["mean"] >= entry["largest"][what]["mean"]
    ]
    return f"lower in all {len(compared)}" if not worse else f"not in {', '.join(worse)}"


def _table(policies: Mapping[str, Any]) -> list[str]:
    lines = [
        "| policy | slower than the objective, % | mean accuracy, % | p95, ms | p99, ms | switches an hour |",
        "|---|---|---|---|---|---|",
    ]
    for policy, name in NAMES.items():
        if figures := policies.get(policy):
            shown = (figures[key] for key in ("slowPercent", "accuracyPercent", "p95", "p99", "switchesPerHour"))
            lines.append(f"| {name} | {' | '.join(_shown(value) for value in shown)} |")
    return lines


def _of(runs: Runs, story: str, objective: str, policy: str) -> list[Mapping[str, Any]]:
    return [run for key, run in runs.items() if key.split("/")[:3] == [story, objective, policy]]


def _figures(runs: list[Mapping[str, Any]]) -> dict[str, Any]:
    if not runs:
        return {}
    hours = [run["seconds"] / 3600 for run in runs]
    return {
        "slowPercent": _interval(100 * run["slow"] / max(1, run["requests"]) for run in runs),
        "accuracyPercent": _interval(run["accuracyPercent"] for run in runs),
        "p95": _interval(run["p95"] for run in runs),
        "p99": _interval(run["p99"] for run in runs),
        "switchesPerHour": _interval(run["switches"] / hour for run, hour in zip(runs, hours, strict=True)),
        "downshiftsPerHour": _interval(run["downshifts"] / hour for run, hour in zip(runs, hours, strict=True)),
    }


def _interval(values: Iterable[float]) -> dict[str, float]:
    found = list(values)
    half = 0.0
    if len(found) > 1:
        half = _T.get(len(found) - 1, 2.0) * statistics.stdev(found) / len(found) ** 0.5
    return {"mean": statistics.mean(found), "plusMinus": half}


def _shown(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.4g} ± {value['plusMinus']:.2g}"


def _ratio(first: Mapping[str, float], second: Mapping[str, float]) -> str:
    return f"{first['mean'] / second['mean']:.1f}" if second["mean"] else "infinitely many"


def _seeds(runs: Runs) -> int:
    return len({key.split("/")[3] for key in runs})
