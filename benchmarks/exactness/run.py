"""Exactness over many architectures. Resumable: one JSON line per architecture, and those that have one are skipped.

    nice -n 15 .venv/bin/python benchmarks/exactness/run.py [--only timm:resnet18 ...] [--again FAILED INEXACT timeout]

Writes ``benchmarks/results/exactness.json`` and ``exactness.md`` after every architecture.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.exactness.architectures import all_names
from benchmarks.exactness.table import as_markdown

ROOT = Path(__file__).parents[2]
LINES = ROOT / "benchmarks" / "work" / "exactness" / "lines.jsonl"
RESULTS = ROOT / "benchmarks" / "results"
TIME_LIMIT_SECONDS = 420


def main() -> None:
    """Go through what has no line yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="these architectures (library:name)")
    parser.add_argument("--again", nargs="*", default=[], help="repeat those with these outcomes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    LINES.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    done = read_lines()
    names = arguments.only or all_names()
    for position, name in enumerate(names, start=1):
        known = done.get(name)
        if known is not None and not arguments.only and known["outcome"] not in arguments.again:
            continue
        record = run_one(name, seed=arguments.seed) | {"commit": _commit()}
        with LINES.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        done[name] = record
        print(f"{position}/{len(names)} {name}: {record['outcome']} {record.get('reason', '')}", flush=True)
        write_results(done)
    write_results(done)


def read_lines() -> dict[str, dict[str, Any]]:
    """The last line of each architecture."""
    if not LINES.exists():
        return {}
    records = [json.loads(line) for line in LINES.read_text().splitlines() if line.strip()]
    return {record["architecture"]: record for record in records}


def run_one(name: str, *, seed: int) -> dict[str, Any]:
    """Measure one architecture in a process of its own, with a time limit."""
    command = [sys.executable, str(Path(__file__).with_name("one.py")), name, "--seed", str(seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=TIME_LIMIT_SECONDS, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        reason = f"longer than {TIME_LIMIT_SECONDS} s"
        return {"architecture": name, "outcome": "timeout", "reason": reason}
    lines = finished.stdout.strip().splitlines()
    if finished.returncode or not lines:
        reason = " ".join(finished.stderr.split())[-300:]
        return {"architecture": name, "outcome": "FAILED", "reason": f"exit {finished.returncode}: {reason}"}
    record: dict[str, Any] = json.loads(lines[-1])
    return record


def write_results(done: dict[str, dict[str, Any]]) -> None:
    """The JSON document and the Markdown table of what is known so far."""
    records = [done[name] for name in all_names() if name in done]
    document = {
        "environment": {
            "machine": platform.machine(),
            "processor": _processor(),
            "threads": 1,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "torchvision", "timm", "numpy")},
        },
        "command": "python benchmarks/exactness/run.py",
        "architectures": records,
    }
    (RESULTS / "exactness.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "exactness.md").write_text(as_markdown(document))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%h", "--", "pruner_job/edgefolio_pruner/spatial"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
