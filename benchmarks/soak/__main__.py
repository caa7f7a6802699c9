"""Soak test: random faults on a real cluster under load, and whether everything converges.

    tests/cluster/bed/build.sh                 # once
    python -m benchmarks.soak --minutes 20     # root; `make soak` is the same, with SOAK_MINUTES=

Three edge nodes serve a portfolio that follows a bucket, a client on each asks all the time, and faults are drawn at
random from a list (see ``faults.py``), one after the other: each is made, ended, and waited for until the portfolio is
Ready, every node serves the most accurate variant of the newest revision, and all pods are ready and routed to. The
report counts requests, failures at nodes that were up, wrong answers, times to converge and growth of memory. It is
written after every fault anew, and whatever ends the soak. For each fault in which a request failed or that was not
over, the logs of serving pods and operator are kept in OUTPUT-logs, for the last 20 such faults. Exit code 0 only if no
such request failed, no answer was wrong and everything converged.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BED = ROOT / "tests" / "cluster" / "bed"
RESULTS = ROOT / "benchmarks" / "results"
sys.path.extend(str(ROOT / "tests" / folder) for folder in ("shared", "cluster"))

from bed_machine import bed_run, cpusets  # noqa: E402
from benchmarks.scale.__main__ import commit, machine  # noqa: E402
from benchmarks.soak.faults import KINDS  # noqa: E402
from benchmarks.soak.logs import PodLogs  # noqa: E402
from benchmarks.soak.report import is_sound, markdown  # noqa: E402
from benchmarks.soak.running import NODES, Soak  # noqa: E402
from control_plane import Kubernetes, NotBuilt, bed_cache, programs  # noqa: E402
from edge_site import EdgeSite  # noqa: E402

#: Kubernetes' own default. The bed's is shorter than an API server is frozen here: all nodes would be lost at once,
#: and Kubernetes would route to none of them.
NODE_LOST_AFTER = "50s"
#: Of each node's disk for its pods' volumes.
NODE_DISK_MIB = "512"


def main() -> int:
    """Soak; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="how long faults are made (20)")
    parser.add_argument("--seed", type=int, default=1, help="which faults, where and when (1)")
    parser.add_argument("--only", metavar="FAULT", help="faults whose name holds this, and no others")
    parser.add_argument("--output", type=Path, default=RESULTS / "soak.json", help="where the results go, as JSON")
    arguments = parser.parse_args()
    if arguments.only and not any(arguments.only in kind.name for kind in KINDS):
        parser.error(
            f"--only: no fault is called {arguments.only!r}; there are {', '.join(kind.name for kind in KINDS)}"
        )
    # What is started here is ended here, whatever ends this: by default these would end it at once.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("ended by a signal"))
    only = f" --only {arguments.only!r}" if arguments.only else ""
    facts = {
        "command": f"python -m benchmarks.soak --minutes {arguments.minutes:g} --seed {arguments.seed}{only}",
        "commit": commit(),
        "machine": machine(),
        "seed": arguments.seed,
        "nodes": len(NODES),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {}

    def write(found: dict[str, object]) -> None:
        content.update({**facts, **found})
        arguments.output.write_text(json.dumps(content, indent=1) + "\n")
        arguments.output.with_suffix(".md").write_text(markdown(content))

    with _cluster() as kubernetes:
        logs = PodLogs(bed_run(), NODES, kept=arguments.output.with_name(f"{arguments.output.stem}-logs"))
        soak = Soak(
            EdgeSite(kubernetes, bed_run()), seed=arguments.seed, only=arguments.only or "", write=write, logs=logs
        )
        soak.set_up()
        soak.run(60 * arguments.minutes)
    print(markdown(content))
    return 0 if is_sound(content) else 1


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
    settings = {
        "NODE_CPUSETS": cpusets(),
        "NODE_LOST_AFTER": NODE_LOST_AFTER,
        "NODE_DISK_MIB": NODE_DISK_MIB,
        "NODE_CLOCKS": "yes",
    }
    try:
        subprocess.run([BED / "up.sh"], check=True, env={**os.environ, **settings})
        yield Kubernetes(binaries=programs("kubectl", "helm"), kubeconfig=bed_run() / "kubeconfig")
    finally:
        # Once more interrupted it would leave a cluster behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        subprocess.run([BED / "down.sh"], check=True, env={**os.environ, **settings})


if __name__ == "__main__":
    sys.exit(main())
