"""What the operator costs with 2, 50 and 500 endpoints, and how soon an objective reaches all of them.

    tests/cluster/bed/build.sh   # once
    python -m benchmarks.scale    # about 30 minutes; no root

One size after the other, and all of them three times: a control plane on loopback (etcd, API server, controllers,
scheduler), nodes that kwok plays, the real operator as a process of its own, and this process, which acts as all agents
(see ``agents.py``). A run that is finished is kept in ``--work-dir`` and not measured again; ``--sizes 2 50`` measures
some, ``--table-only`` none. Where others use the machine too, ``--below 2`` waits before each run until the load
average is below that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.scale import settings
from benchmarks.scale.installation import kubernetes_version
from benchmarks.scale.phases import run, say
from benchmarks.scale.table import markdown

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Measure the runs that are missing and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(settings.SIZES))
    parser.add_argument("--rounds", type=int, default=settings.ROUNDS)
    parser.add_argument("--work-dir", type=Path, default=ROOT / "benchmarks" / "work" / "scale")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--below", type=float, default=float("inf"), metavar="LOAD")
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    path = arguments.results / "scale.json"
    for number, size in itertools.product(range(1, arguments.rounds + 1), arguments.sizes):
        record = arguments.work_dir / f"{size}-{number}.json"
        if not arguments.table_only and not record.exists():
            wait_for_calm(arguments.below)
            say(f"{size} endpoints, round {number}")
            measured = {**run(size), "commit": commit()}
            scratch = record.with_suffix(".part")
            scratch.write_text(json.dumps(measured, indent=1) + "\n")
            scratch.replace(record)
        write(path, arguments.work_dir)


def wait_for_calm(load: float) -> None:
    """Until the machine has had less to do than this for a minute."""
    while os.getloadavg()[0] >= load:
        time.sleep(5)


def write(path: Path, work: Path) -> None:
    """Results and table of the runs that are finished."""
    runs = [json.loads(record.read_text()) for record in sorted(work.glob("*-*.json"))]
    if not runs:
        return
    rows = [
        {"endpoints": size, "runs": [found for found in runs if found["endpoints"] == size]}
        for size in sorted({found["endpoints"] for found in runs})
    ]
    content = {"command": "python -m benchmarks.scale", "machine": machine(), "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(content))


def machine() -> dict[str, Any]:
    """Where it was measured, and with what."""
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    packages = ("kopf", "aiohttp", "pydantic", "kubernetes")
    return {
        "processor": processor,
        "logicalCpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "kubernetes": kubernetes_version(),
        "packages": {name: _version(name) for name in packages},
    }


def commit() -> str:
    """The commit that is checked out, with a mark if files differ from it."""
    done = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    main()
