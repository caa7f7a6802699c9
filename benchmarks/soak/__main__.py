"""Soak test: random faults on a real cluster under load, and whether everything converges.

    tests/cluster/bed/build.sh                 # once
    python -m benchmarks.soak --minutes 20     # root; `make soak` is the same, with SOAK_MINUTES=

Three edge nodes serve a portfolio, a client on each asks all the time, and faults are drawn at random from a list (see
``faults.py``), one after the other: each is made, ended, and waited for until the portfolio is Ready, every node serves
its most accurate variant, and all pods are ready and routed to. The report counts requests, failures at nodes that were
up, wrong answers, times to converge and growth of memory. Exit code 0 only if no such request failed, no answer was
wrong and everything converged.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
BED = ROOT / "tests" / "cluster" / "bed"
RESULTS = ROOT / "benchmarks" / "results"
sys.path.extend(str(ROOT / "tests" / folder) for folder in ("shared", "cluster"))

from bed_machine import bed_run, container_id, cpusets  # noqa: E402
from benchmarks.scale.__main__ import commit, machine  # noqa: E402
from benchmarks.soak.faults import KINDS, Struck, strike  # noqa: E402
from benchmarks.soak.report import markdown, summary  # noqa: E402
from cluster_site import wait_for  # noqa: E402
from control_plane import Kubernetes, NotBuilt, bed_cache, programs  # noqa: E402
from edge_client import Request  # noqa: E402
from edge_site import SYSTEM, EdgeSite  # noqa: E402

NODES = ("edge-1", "edge-2", "edge-3")
#: Seconds within which a fault must be over, for users as well.
LONGEST_SECONDS = 300.0
#: Requests a second of one client.
RATE = 4.0
#: Kubernetes' own default. The bed's is shorter than an API server is frozen here: all nodes would be lost at once,
#: and Kubernetes would route to none of them.
NODE_LOST_AFTER = "50s"
#: Clients begin anew this often: what one has recorded is read from its pod's log, which is bounded.
CLIENT_SECONDS = 600.0


def main() -> int:
    """Soak; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="how long faults are made (20)")
    parser.add_argument("--seed", type=int, default=1, help="which faults, where and when (1)")
    parser.add_argument("--output", type=Path, default=RESULTS / "soak.json", help="where the results go, as JSON")
    arguments = parser.parse_args()
    with _cluster() as kubernetes:
        site = EdgeSite(kubernetes, bed_run())
        site.set_up()
        site.serve_on(*NODES)
        wait_for(lambda: _converged(site), seconds=300)
        content = _soak(site, seconds=60 * arguments.minutes, seed=arguments.seed)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(content, indent=1) + "\n")
    page = markdown(content)
    arguments.output.with_suffix(".md").write_text(page)
    print(page)
    sound = not content["failedAtNodesThatWereUp"] and not content["wrongAnswers"]
    return 0 if sound and all(entry["converged"] == entry["times"] for entry in content["faults"]) else 1


def _soak(site: EdgeSite, *, seconds: float, seed: int) -> dict[str, object]:
    choice = random.Random(seed)
    site.apply(objectives={"latencyP95Milliseconds": site.objective()})
    before = _memory(site)
    began = time.time()
    clients = {node: site.start_client(node, rate=RATE, seconds=CLIENT_SECONDS) for node in NODES}
    changed = time.time()
    requests: dict[str, list[Request]] = {node: [] for node in NODES}
    struck: list[Struck] = []
    deck: list[int] = []
    while time.time() < began + seconds:
        if time.time() > changed + CLIENT_SECONDS / 2:
            for node in NODES:
                requests[node] += clients[node].stop()
                clients[node] = site.start_client(node, rate=RATE, seconds=CLIENT_SECONDS)
            changed = time.time()
        if not deck:
            # Every kind once, in random order, before one comes again.
            deck = choice.sample(range(len(KINDS)), len(KINDS))
        kind, node = KINDS[deck.pop()], choice.choice(NODES)
        found = strike(kind, site, node, choice, converged=lambda: _converged(site), longest=LONGEST_SECONDS)
        struck.append(found)
        shown = "did not converge" if found.converged_at is None else f"{found.converged_at - found.ended:.1f} s"
        print(f"{found.began - began:6.0f} s  {kind.name}, {node}: {shown}", file=sys.stderr, flush=True)
        if found.converged_at is None:
            print(site.kubernetes.kubectl("get", "mpf,mep,pods", "-o", "wide"), file=sys.stderr, flush=True)
    for node in NODES:
        requests[node] += clients[node].stop()
    site.apply()
    wait_for(lambda: _converged(site), seconds=LONGEST_SECONDS)
    after = _memory(site)
    memory = {name: (before[name], after[name]) for name in before if name in after}
    ended = time.time()
    return {
        "command": f"python -m benchmarks.soak --minutes {seconds / 60:.0f} --seed {seed}",
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "nodes": len(NODES),
        **summary(requests, struck, memory, began=began, seconds=ended - began),
    }


def _converged(site: EdgeSite) -> bool:
    """Whether the portfolio is Ready, each node serves its most accurate variant, and all pods are routed to."""
    if site.condition("Ready")[0] != "True":
        return False
    wanted, endpoints = site.most_accurate, site.endpoints()
    return (
        set(endpoints) == set(NODES)
        and all((entry.get("status") or {}).get("activeVariant") == wanted for entry in endpoints.values())
        and site.routed(*NODES)
        and all(_is_ready(site.pod_on(node)) for node in NODES)
        and all(_is_ready(pod) for pod in _system(site).pods("app.kubernetes.io/component=operator"))
    )


def _is_ready(pod: dict[str, Any]) -> bool:
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in pod["status"].get("conditions", ()))


def _system(site: EdgeSite) -> EdgeSite:
    """The namespace of the operator."""
    return EdgeSite(site.kubernetes, site.machine.run, namespace=SYSTEM)


def _memory(site: EdgeSite) -> dict[str, int]:
    """Resident bytes of agents, Tritons and the operator, with their children."""
    found: dict[str, int] = {}
    for node in NODES:
        pod = site.pod_on(node)
        for container in ("agent", "triton"):
            found[f"{container} on {node}"] = _resident(site.machine.process_of(node, container_id(pod, container)))
    for number, pod in enumerate(_system(site).pods("app.kubernetes.io/component=operator"), start=1):
        identity = container_id(pod, pod["spec"]["containers"][0]["name"])
        found[f"operator {number}"] = _resident(site.machine.process_of(pod["spec"]["nodeName"], identity))
    return found


def _resident(identity: int) -> int:
    process = psutil.Process(identity)
    total = 0
    for entry in (process, *process.children(recursive=True)):
        try:
            total += int(entry.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return total


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
        environment = {"NODE_CPUSETS": cpusets(), "NODE_LOST_AFTER": NODE_LOST_AFTER}
        subprocess.run([BED / "up.sh"], check=True, env={**os.environ, **environment})
        yield Kubernetes(binaries=programs("kubectl", "helm"), kubeconfig=bed_run() / "kubeconfig")
    finally:
        subprocess.run([BED / "down.sh"], check=True)


if __name__ == "__main__":
    sys.exit(main())
