"""Run the demonstration on a cluster: ``python -m demo.cluster [--keep]`` (root on Linux; the test bed's programs).

A Kubernetes with three edge nodes is started on this machine, Edgefolio is installed by its chart, a ModelPortfolio is
applied, its Job trains and prunes, two nodes serve it. A neighbour then takes the processor of one node: its endpoint
goes to a faster variant and comes back, the other node does not move, and no request fails.

Exit code 0 only if all of that happened.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).parents[2]
BED = ROOT / "tests" / "cluster" / "bed"
# The site that the cluster tests use is the one that is shown here.
sys.path.extend(str(ROOT / "tests" / folder) for folder in ("shared", "cluster"))

from bed_machine import bed_run, cpusets  # noqa: E402
from control_plane import Kubernetes, NotBuilt, bed_cache, programs  # noqa: E402
from edge_client import Request  # noqa: E402
from edge_site import EdgeSite  # noqa: E402

from demo.cluster.watching import Watch  # noqa: E402

NODES = ("edge-1", "edge-2")
QUIET_SECONDS, LONGEST_SECONDS = 15.0, 120.0


def main() -> int:
    """Tell the story; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.cluster", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster running at the end")
    arguments = parser.parse_args()
    console, began = Console(highlight=False), time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.0f} s[/dim]  {escape(text)}", soft_wrap=True)

    with _cluster(keep=arguments.keep) as kubernetes:
        say("three edge nodes are Ready")
        site = EdgeSite(kubernetes, bed_run())
        return _story(site, console, say)


def _story(site: EdgeSite, console: Console, say: object) -> int:
    assert callable(say)
    say("helm install edgefolio helm/edgefolio")
    site.install()
    site.prepare()
    site.serve_on(*NODES)
    say("kubectl apply -f portfolio.yaml: a Job trains, prunes, profiles and publishes to S3")
    site.apply()
    watch = Watch(site, say)
    # Ready is what serves; a client that comes before its own node's pod is up stays with another node's.
    watch.until("ready", lambda: site.condition("Ready")[0] == "True", seconds=600)
    watch.until("routed on both nodes", lambda: site.routed(*NODES), seconds=60)
    for node in NODES:
        site.settle_on(site.most_accurate, node)
    objective = site.objective()
    site.apply(objectives={"latencyP95Milliseconds": objective})
    clients = {node: site.start_client(node) for node in NODES}
    say(f"clients on both nodes; objective: p95 <= {objective} ms")
    time.sleep(QUIET_SECONDS)
    phases = [("quiet", time.time() - QUIET_SECONDS)]
    say("a busy neighbour starts on edge-2")
    phases.append(("busy", time.time()))
    hog = site.start_hog("edge-2")
    left = watch.until("down", lambda: site.active("edge-2") != site.most_accurate, seconds=LONGEST_SECONDS)
    time.sleep(QUIET_SECONDS)
    say("the neighbour goes")
    site.delete_pod(hog)
    phases.append(("calm", time.time()))
    back = watch.until("up", lambda: site.active("edge-2") == site.most_accurate, seconds=LONGEST_SECONDS)
    time.sleep(QUIET_SECONDS / 2)
    stayed = site.active("edge-1") == site.most_accurate
    requests = {node: client.stop() for node, client in clients.items()}
    console.print(_table(phases, requests, objective))
    console.print(site.kubernetes.kubectl("get", "mpf,mep"), soft_wrap=True)
    failed = [request for recorded in requests.values() for request in recorded if request.error]
    claims = {
        "edge-2 went to a faster variant, and back": left and back,
        "edge-1 did not move": stayed,
        f"no failed request: {sum(map(len, requests.values()))} sent": not failed,
        "each client was answered by its own node": len({entry.version for entry in requests["edge-1"]}) == 1,
    }
    for claim, holds in claims.items():
        console.print(f"[green]holds[/green]  {claim}" if holds else f"[red]FAILS[/red]  {claim}")
    return 0 if all(claims.values()) else 1


def _table(phases: list[tuple[str, float]], requests: dict[str, list[Request]], objective: int) -> Table:
    table = Table(title="Latency as the clients saw it, and the Triton versions that answered", title_justify="left")
    for heading in ("phase", "node", "sent", "failed", "p50 ms", "p95 ms", f"> {objective} ms", "versions"):
        table.add_column(heading, no_wrap=True)
    ends = [start for _, start in phases[1:]] + [float("inf")]
    for (phase, start), end in zip(phases, ends, strict=True):
        for node, recorded in requests.items():
            inside = [request for request in recorded if start <= request.due < end]
            times = sorted(request.milliseconds for request in inside)
            if not times:
                continue
            over = sum(milliseconds > objective for milliseconds in times)
            versions = sorted({request.version for request in inside if request.version is not None})
            table.add_row(
                *(phase, node, str(len(inside)), str(sum(request.error is not None for request in inside))),
                *(f"{times[len(times) // 2]:.0f}", f"{times[int(0.95 * (len(times) - 1))]:.0f}"),
                f"{100 * over / len(times):.0f} %",
                ", ".join(map(str, versions)),
            )
    return table


@contextmanager
def _cluster(*, keep: bool) -> Iterator[Kubernetes]:
    try:
        bed_cache()
    except NotBuilt as error:
        sys.exit(f"error: {error}")
    subprocess.run([BED / "build.sh"], check=True)
    subprocess.run([BED / "down.sh"], check=True)
    try:
        subprocess.run([BED / "up.sh"], check=True, env={**os.environ, "NODE_CPUSETS": cpusets()})
        yield Kubernetes(binaries=programs("kubectl", "helm"), kubeconfig=bed_run() / "kubeconfig")
    finally:
        if keep:
            print(f"the cluster runs on: export KUBECONFIG={bed_run() / 'kubeconfig'}; end it with {BED / 'down.sh'}")
        else:
            subprocess.run([BED / "down.sh"], check=True)


if __name__ == "__main__":
    sys.exit(main())
