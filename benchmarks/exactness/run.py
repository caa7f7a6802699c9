"""Exactness over many architectures. Resumable: one JSON line per architecture, and those that have one are skipped.

    nice -n 15 .venv/bin/python benchmarks/exactness/run.py [--only timm:resnet18 ...] [--again FAILED INEXACT timeout]

Writes ``benchmarks/results/exactness.json`` and ``exactness.md`` after every architecture.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.exactness.architectures import all_names
from benchmarks.exactness.table import as_markdown

ROOT = Path(__file__).parents[2]
LINES = ROOT / "benchmarks" / "work" / "exactness" / "lines.jsonl"
RESULTS = ROOT / "benchmarks" / "results"
TIME_LIMIT_SECONDS = 240
_ANSWERS_PER_PROCESS = 12


def main() -> None:
    """Go through what has no line yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="these architectures (library:name)")
    parser.add_argument("--again", nargs="*", default=[], help="repeat those with these outcomes")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no other after so long")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    LINES.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    done = read_lines()
    names = arguments.only or all_names()
    worker = Worker()
    end = time.monotonic() + 60 * arguments.minutes
    for position, name in enumerate(names, start=1):
        if time.monotonic() > end:
            break
        known = done.get(name)
        if known is not None and not arguments.only and known["outcome"] not in arguments.again:
            continue
        record = worker.measure(name, seed=arguments.seed) | {"commit": _commit()}
        with LINES.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        done[name] = record
        print(f"{position}/{len(names)} {name}: {record['outcome']} {record.get('reason', '')}", flush=True)
        write_results(done)
    worker.close()
    write_results(done)


def read_lines() -> dict[str, dict[str, Any]]:
    """The last line of each architecture."""
    if not LINES.exists():
        return {}
    records = [json.loads(line) for line in LINES.read_text().splitlines() if line.strip()]
    return {record["architecture"]: record for record in records}


class Worker:
    """The process that measures; a new one after a failure, and now and then, for what it leaves in memory."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answered = 0

    def measure(self, name: str, *, seed: int) -> dict[str, Any]:
        """The record of one architecture; ``timeout`` or ``FAILED`` if the process gives none."""
        if self._process is None:
            command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(LINES.parent / "worker.log").open("a"),
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {seed}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], TIME_LIMIT_SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if line:
            self._answered += 1
            if self._answered % _ANSWERS_PER_PROCESS == 0:
                self.close()
            record: dict[str, Any] = json.loads(line)
            return record
        self.close()
        outcome, reason = ("FAILED", "the process died") if ready else ("timeout", f"over {TIME_LIMIT_SECONDS} s")
        return {"architecture": name, "outcome": outcome, "reason": reason}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def write_results(done: dict[str, dict[str, Any]]) -> None:
    """The JSON document and the Markdown table of what is known so far."""
    records = [done[name] for name in all_names() if name in done]
    not_reached = [name for name in all_names() if name not in done]
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
        "notReached": not_reached,
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
