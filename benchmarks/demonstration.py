"""Repeat the loads of the demonstration on the portfolio that it made, and compare them run by run.

python -m benchmarks.demonstration [--portfolio demo-output] [--runs 5]

`make demo` comes first: it makes the portfolio. In each run the three servers take turns under the same load, each run
in another order, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.portfolio.summary import mean
from benchmarks.portfolio.table import with_interval
from demo.__main__ import EXAMPLE
from demo.corruption import withdraw_corrupted
from demo.loads import LoadResult, Stage
from demo.portfolio import slowest_and_fastest
from demo.results import checks
from demo.story import COMPARED, placed
from demo.summary import slow_requests_percent

from edgefolio.manifest import Manifest
from edgefolio.processor import this_processor
from edgefolio.repository import Repository
from edgefolio_edge.triton.launcher.wheel import TRITON_VERSION

Json = dict[str, Any]

RESULTS = Path(__file__).resolve().parent / "results" / "demonstration.json"
SERVERS = ("adaptive", "slowest", "fastest")
#: What the page compares: the figure of a load, and its words.
FIGURES = {
    "slowRequestsPercent": "requests slower than the objective, % (it allows 5)",
    "outsideObjectivePercent": "seconds whose p95 is above the objective, %",
    "meanAccuracyPercent": "mean accuracy served, %",
    "p50Milliseconds": "p50, ms",
    "p95Milliseconds": "p95, ms",
    "switches": "switches",
    "longestGapMilliseconds": "longest time without any answer, ms",
}


def main() -> None:
    """Run, then write the figures and their page; ends with 1 if a run broke what must always hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portfolio", type=Path, default=Path("demo-output"), help="what `make demo` wrote")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    repository: Path = (options.portfolio / "repository").resolve()
    if not repository.is_dir():
        parser.error(f"there is no portfolio in {options.portfolio}; run `make demo` first, or name its --output")
    store = Repository.open(str(repository))
    # What the demonstration published after it is corrupt on purpose.
    manifest = store.manifest(store.models()[0], 1)
    slowest, fastest = slowest_and_fastest(manifest)
    loads_before = os.getloadavg()[0]
    runs: list[Json] = []
    broken: list[str] = []
    for number in range(options.runs):
        results: dict[str, LoadResult] = {}
        with tempfile.TemporaryDirectory() as scratch:
            stage = _stage(Path(scratch), repository, manifest)
            loads: Mapping[str, Callable[[], LoadResult]] = {
                "adaptive": stage.adaptive,
                "slowest": stage.fixed_slowest,
                "fastest": stage.fixed_fastest,
            }
            for place in range(len(SERVERS)):
                server = SERVERS[(number + place) % len(SERVERS)]
                results[server] = loads[server]()
        verdicts = checks(manifest, list(results.values()))
        broken += [f"run {number + 1}: {verdict.name}: {verdict.detail}" for verdict in verdicts if not verdict.passed]
        runs.append({server: _figures(results[server]) for server in SERVERS})
    content: Json = {
        "command": "python -m benchmarks.demonstration",
        "machine": {
            "processor": this_processor().model,
            "logicalCpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "triton": TRITON_VERSION,
            "packages": {name: importlib.metadata.version(name) for name in ("onnxruntime", "numpy", "tritonclient")},
            "loadAverageBefore": round(loads_before, 2),
        },
        "portfolio": {
            "model": manifest.model,
            "seed": manifest.seed,
            "variants": [variant.name for variant in manifest.variants],
            "slowest": slowest.name,
            "fastest": fastest.name,
        },
        "objectiveMilliseconds": stage.objective,
        "summary": _summary(runs),
        "broken": broken,
        "runs": runs,
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(_page(content))
    print(_page(content))
    sys.exit(1 if broken else 0)


def _stage(scratch: Path, repository: Path, manifest: Manifest) -> Stage:
    """The loads on a copy of the repository as it was when it was made: each run publishes something corrupt."""
    copy = scratch / "repository"
    shutil.copytree(repository, copy)
    withdraw_corrupted(copy, manifest)
    (scratch / "loads").mkdir()
    return Stage(
        output=scratch / "loads",
        repository=copy,
        example=EXAMPLE,
        manifest=manifest,
        progress=lambda text: print(text, file=sys.stderr, flush=True),
    )


def _figures(result: LoadResult) -> Json:
    """What the demonstration's table shows, and the share of requests that were slower than the objective then."""
    slow = slow_requests_percent(result.load.records, result.objective_at, placed(COMPARED)[-1].end)
    figures: Json = result.figures.model_dump(mode="json", by_alias=True)
    return figures | {"slowRequestsPercent": slow}


def _summary(runs: Sequence[Json]) -> Json:
    """Of each figure the mean over the runs with its 95 % interval, and the same of the difference to Edgefolio."""
    result: Json = {}
    for figure in FIGURES:
        values = {server: [float(run[server][figure]) for run in runs] for server in SERVERS}
        result[figure] = {server: mean(values[server]) for server in SERVERS} | {
            f"adaptiveMinus{server.capitalize()}": mean(
                [own - other for own, other in zip(values["adaptive"], values[server], strict=True)]
            )
            for server in SERVERS[1:]
        }
    return result


def _page(content: Json) -> str:
    """The Markdown page beside the results."""
    portfolio, runs = content["portfolio"], content["runs"]
    requests = sum(run[server]["requests"] for run in runs for server in SERVERS)
    failed = sum(run[server]["failed"] for run in runs for server in SERVERS)
    wrong = sum(run[server]["wrongVersion"] for run in runs for server in SERVERS)
    lines = [
        "# The demonstration, repeated",
        "",
        f"`{content['command']}` writes `demonstration.json`. {len(runs)} runs of the loads of `make demo`, the three",
        "servers in turns, on one portfolio; mean ± half of a 95 % interval over the runs. The objective is",
        f"{content['objectiveMilliseconds']} ms, halved for the last seconds. Some 19 requests arrive in a second:",
        "its p95 is the slowest of them.",
        "",
        f"| figure | Edgefolio | {portfolio['slowest']} fixed | {portfolio['fastest']} fixed "
        f"| Edgefolio - {portfolio['slowest']} | Edgefolio - {portfolio['fastest']} |",
        "|---|---|---|---|---|---|",
    ]
    for figure, words in FIGURES.items():
        summary, digits = content["summary"][figure], 2 if figure == "meanAccuracyPercent" else 1
        columns = (*SERVERS, "adaptiveMinusSlowest", "adaptiveMinusFastest")
        lines.append(f"| {words} | " + " | ".join(with_interval(summary[column], digits) for column in columns) + " |")
    lines += [
        "",
        f"{requests} requests before the trials: {failed} failed, {wrong} answered by another version than stated.",
    ]
    lines += [f"- broken: {text}" for text in content["broken"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
