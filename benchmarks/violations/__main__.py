"""Compare what users see under Edgefolio and under other rules, and write one JSON file and one page.

    python -m benchmarks.violations [--trace FILE] [--observation] [--triton DIR] [--seeds 3]

Virtual time, measured profiles (``portfolio.json``, ``switching.json``), generated stories, and with ``--trace`` the
requests of a file with one count a second and line. ``--observation`` measures on a real Triton what reading its
counters costs, ``--triton`` what users see on one under real neighbours, with the portfolio that ``make demo`` wrote to
DIR. What is in the output already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.violations import stories
from benchmarks.violations.endpoint import Endpoint, Policy
from benchmarks.violations.ours import Edgefolio
from benchmarks.violations.policies import Fixed, InfAdapter, Oracle, Proteus, Threshold
from benchmarks.violations.summary import markdown, summarized

from edgefolio.decision.types import VariantProfile
from edgefolio.processor import this_processor
from edgefolio.specification import Switching

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MEBIBYTE = 2**20
#: The net and the variants of ``portfolio.json`` that no other is better than in both respects.
NETWORK, VARIANTS = "VGG-11", ("sparse-4", "sparse-2", "sparse-1", "dense")
#: Requests of six of its batches of 32, and p95 / mean of a variant on an idle node.
BATCHES, P95_BY_MEAN = 6, 1.15
#: P95 objectives, in execution times of the most accurate variant.
OBJECTIVES = {"tight": 2.5, "loose": 3.5}
#: The mean rate that a file is scaled to, in requests per second.
FILE_RATE = 12.0
POLICIES: dict[str, Callable[[], Policy]] = {
    "edgefolio": Edgefolio,
    "before": lambda: Edgefolio(Switching(standby="None", max_switches_per_hour=12), reads=False),
    "largest": lambda: Fixed(largest=True),
    "smallest": lambda: Fixed(largest=False),
    "threshold": Threshold,
    "infadapter": InfAdapter,
    "proteus": Proteus,
    "oracle": Oracle,
}
#: Stories of hours that answer one question each.
SINGLE = {"onsets": ("edgefolio", "before"), "steady": ("edgefolio", "before")}


def profiles() -> tuple[VariantProfile, ...]:
    """The measured profiles."""
    variants = json.loads((RESULTS / "portfolio.json").read_text())["networks"][NETWORK]["variants"]
    switching = json.loads((RESULTS / "switching.json").read_text())
    memory = switching["memory"]
    each = (memory["allVariantsMebibytes"] - memory["oneVariantMebibytes"]) / (memory["variants"] - 1)

    def profile(rank: int, name: str) -> VariantProfile:
        mean = BATCHES * variants[name]["speedUp"]["32"]["milliseconds"]["cpu"]["mean"]
        return VariantProfile(
            name=name,
            rank=rank,
            accuracy_percent=variants[name]["accuracyPercent"]["mean"],
            mean_milliseconds=mean,
            p95_milliseconds=P95_BY_MEAN * mean,
            load_milliseconds=switching["switching"]["switchMilliseconds"]["p50"],
            memory_peak_bytes=round(1.3 * each * MEBIBYTE),
            memory_steady_bytes=round(each * MEBIBYTE),
        )

    return tuple(profile(rank, name) for rank, name in enumerate(VARIANTS, 1))


def main() -> None:
    """Run what is missing, and write after each story."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.violations", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help="requests in each second, one integer a line")
    parser.add_argument("--observation", action="store_true", help="measure the cost of observation on a real Triton")
    parser.add_argument("--triton", type=Path, metavar="DIR", help="run on a real Triton what `make demo` made there")
    parser.add_argument("--onsets", type=int, default=5, help="neighbours that come while each server serves")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="7 and more were never used to shape the rules")
    parser.add_argument("--only", nargs="*", help="names of stories")
    parser.add_argument("--output", type=Path, default=RESULTS / "violations.json")
    arguments = parser.parse_args()
    content: dict[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    variants = profiles()
    content |= {
        "command": "python -m benchmarks.violations"
        + (f" --first-seed {arguments.first_seed}" if arguments.first_seed else ""),
        "machine": _machine(),
        "variants": [vars(variant) for variant in variants],
        "objectives": OBJECTIVES,
        "stories": stories.DESCRIPTIONS,
    }
    runs: dict[str, Any] = content.setdefault("runs", {})
    names = [*stories.NAMES, *(["file"] if arguments.trace is not None else [])]
    if arguments.trace is not None:
        content["trace"] = {
            "sha256": stories.sha256_of(arguments.trace),
            "lines": stories.STRETCH,
            "meanRequestsPerSecond": FILE_RATE,
        }
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for name in names:
            if arguments.only and name not in arguments.only:
                continue
            story: stories.Story | None = None
            for objective, factor in OBJECTIVES.items():
                for policy in SINGLE.get(name, tuple(POLICIES)):
                    key = f"{name}/{objective}/{policy}/{seed}"
                    if key in runs:
                        continue
                    if story is None:
                        story = _story(name, seed, trace=arguments.trace)
                    runs[key] = _run(story, variants, policy, factor * variants[-1].mean_milliseconds, seed=seed)
                    print(key, json.dumps(runs[key])[:160], file=sys.stderr, flush=True)
            _write(arguments.output, content)
    if arguments.observation:
        from benchmarks.violations.cost import measure

        content["observation"] = measure()
    if arguments.triton is not None:
        from benchmarks.violations import real

        content["triton"] = real.measure(
            arguments.triton,
            onsets=arguments.onsets,
            progress=lambda text: print(text, file=sys.stderr, flush=True),
        )
    _write(arguments.output, content)


def _story(name: str, seed: int, *, trace: Path | None) -> stories.Story:
    if name == "file":
        assert trace is not None
        return stories.from_file(trace, seed, rate=FILE_RATE)
    return stories.generated(name, seed)


def _run(
    story: stories.Story, variants: tuple[VariantProfile, ...], policy: str, objective: float, *, seed: int
) -> dict[str, Any]:
    begun = time.process_time()
    endpoint = Endpoint(story, variants, POLICIES[policy](), objective=objective, seed=seed)
    outcome = endpoint.run()
    latencies = sorted(outcome.latencies)

    def percentile(percent: float) -> float:
        return round(latencies[min(len(latencies) - 1, int(percent / 100 * len(latencies)))], 2)

    ranks = {variant.name: variant.rank for variant in variants}
    names = [variants[-1].name, *(name for _, name in outcome.switches)]
    downs = sum(ranks[after] < ranks[before] for before, after in pairwise(names))
    return {
        "seconds": story.seconds,
        "requests": outcome.requests,
        "slow": outcome.slow,
        "accuracyPercent": round(outcome.accuracy_sum / max(1, outcome.requests), 4),
        "p50": percentile(50),
        "p95": percentile(95),
        "p99": percentile(99),
        "switches": len(outcome.switches),
        "downshifts": downs,
        "onsets": len(story.onsets),
        "leftSeconds": [round(seconds, 3) for seconds in outcome.left],
        "processorSeconds": round(time.process_time() - begun, 2),
    }


def _machine() -> dict[str, Any]:
    done = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "processor": this_processor().model,
        "logicalCpus": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("pydantic", "onnxruntime", "nvidia-pytriton")},
        "commit": done.stdout.strip(),
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    content["summary"] = summarized(content["runs"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(content))


if __name__ == "__main__":
    main()
