"""Measure how long a cluster takes for what people wait for, and write one table.

    tests/cluster/bed/build.sh       # once
    python -m benchmarks.cluster     # root; some 25 minutes

On the test bed (three nodes on this machine): the chart's installation, from a portfolio to its first serving, a busy
neighbour to the switch, and each fault of ``faults.py`` to the instant when it is over. Each is measured once a round;
the table has the median and the range. What does not converge is said so, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BED = ROOT / "tests" / "cluster" / "bed"
RESULTS = ROOT / "benchmarks" / "results"
sys.path.extend(str(ROOT / "tests" / folder) for folder in ("shared", "cluster"))

from bed_machine import bed_run, cpusets  # noqa: E402
from benchmarks.cluster.faults import FAULTS, LONGEST_SECONDS, NODE, Fault, busy, until  # noqa: E402
from benchmarks.cluster.table import markdown  # noqa: E402
from benchmarks.scale.__main__ import commit, machine  # noqa: E402
from control_plane import Kubernetes, NotBuilt, bed_cache, programs  # noqa: E402
from edge_portfolio import SPEC  # noqa: E402
from edge_site import EdgeSite  # noqa: E402

#: Seconds by what was measured; ``None`` where it did not converge.
Times = dict[str, list[float | None]]


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault is made (1)")
    parser.add_argument("--output", type=Path, default=RESULTS / "cluster.json", help="where the results go, as JSON")
    arguments = parser.parse_args()
    times: Times = {}
    facts = {
        "command": f"python -m benchmarks.cluster --rounds {arguments.rounds}",
        "commit": commit(),
        "machine": machine(),
        "downAfterSeconds": SPEC["switching"]["downAfterSeconds"],
    }

    def write(*, is_whole: bool) -> str:
        content = {**facts, "isWhole": is_whole, "seconds": times}
        arguments.output.write_text(json.dumps(content, indent=1) + "\n")
        page = markdown(content)
        arguments.output.with_suffix(".md").write_text(page)
        return page

    with _cluster() as kubernetes:
        site = EdgeSite(kubernetes, bed_run())
        _setting_up(site, times)
        for _ in range(arguments.rounds):
            _contention(site, times)
            for fault in FAULTS:
                _prepared(site.calm)
                _measure(times, fault.name, lambda fault=fault: _struck(fault, site))
                write(is_whole=False)
                _prepared(lambda fault=fault: fault.undo(site))
    print(write(is_whole=True))
    return 0 if all(value is not None for values in times.values() for value in values) else 1


def _setting_up(site: EdgeSite, times: Times) -> None:
    began = time.monotonic()
    site.install()
    times["install: helm install, until the operator is ready"] = [round(time.monotonic() - began, 1)]
    site.prepare()
    site.serve_on("edge-1", "edge-2")
    began = time.monotonic()
    site.apply()
    until(lambda: bool(site.variants()), seconds=2 * LONGEST_SECONDS)
    times["first portfolio: applied, until its revision is published"] = [round(time.monotonic() - began, 1)]
    _measure(times, "first serving: published, until it is Ready", lambda: _ready_after(site))


def _ready_after(site: EdgeSite) -> float:
    return until(
        lambda: site.condition("Ready")[0] == "True" and site.routed("edge-1", "edge-2"), seconds=LONGEST_SECONDS
    )


def _contention(site: EdgeSite, times: Times) -> None:
    site.calm()
    client = site.start_client(NODE)
    busy(site)
    _measure(
        times,
        "contention: a busy neighbour, until another variant serves",
        lambda: until(lambda: site.active(NODE) not in (None, site.most_accurate), seconds=LONGEST_SECONDS),
    )
    client.stop()


def _struck(fault: Fault, site: EdgeSite) -> float:
    fault.make(site)
    return until(lambda: fault.converged(site), seconds=LONGEST_SECONDS)


def _prepared(step: Callable[[], object]) -> None:
    """What stands between two faults; where it fails, the next one shows it."""
    try:
        step()
    except AssertionError as error:
        print(f"between two faults: {error}", file=sys.stderr, flush=True)


def _measure(times: Times, name: str, measured: Callable[[], float]) -> None:
    """Note the time; a fault that does not converge is a result as well."""
    found: float | None
    try:
        found = round(measured(), 1)
    except AssertionError as error:
        found = None
        print(f"{name}: {error}", file=sys.stderr, flush=True)
    times.setdefault(name, []).append(found)
    print(f"{name}: {'did not converge' if found is None else f'{found} s'}", file=sys.stderr, flush=True)


@contextmanager
def _cluster() -> Iterator[Kubernetes]:
    try:
        bed_cache()
    except NotBuilt as error:
        sys.exit(f"error: {error}")
    if os.geteuid() != 0:
        sys.exit("error: nodes in namespaces of their own need root")
    subprocess.run([BED / "build.sh"], check=True)
    subprocess.run([BED / "down.sh"], check=True)
    try:
        subprocess.run([BED / "up.sh"], check=True, env={**os.environ, "NODE_CPUSETS": cpusets()})
        yield Kubernetes(binaries=programs("kubectl", "helm"), kubeconfig=bed_run() / "kubeconfig")
    finally:
        subprocess.run([BED / "down.sh"], check=True)


if __name__ == "__main__":
    sys.exit(main())
