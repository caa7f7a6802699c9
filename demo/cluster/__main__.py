"""Run the demonstration on a cluster: ``python -m demo.cluster [--keep]`` (root on Linux; the test bed's programs).

A Kubernetes with three edge nodes is started on this machine, Edgefolio is installed by its chart, a ModelPortfolio is
applied, its Job trains and prunes, two nodes serve it. A neighbour then takes the processor of one node: first beside
the most accurate and the fastest variant, each pinned, which gives an objective that lies between them; then with the
choice free. The endpoint goes to a faster variant and comes back, answers are faster than with the variant fixed, the
other node does not move, and no request fails.

Exit code 0 only if all of that happened.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

ROOT = Path(__file__).parents[2]
BED = ROOT / "tests" / "cluster" / "bed"
# The site that the cluster tests use is the one that is shown here.
sys.path.extend(str(ROOT / "tests" / folder) for folder in ("shared", "cluster"))

from bed_machine import bed_run, cpusets  # noqa: E402
from control_plane import Kubernetes, NotBuilt, bed_cache, programs  # noqa: E402
from edge_client import Request  # noqa: E402
from edge_site import EdgeSite  # noqa: E402

from demo.cluster.latency import Phase, last_slow_answer, p95, table  # noqa: E402
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


def _story(site: EdgeSite, console: Console, say: Callable[[str], None]) -> int:
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
    clients = {node: site.start_client(node) for node in NODES}
    say("clients on both nodes")
    phases = [_phase("quiet", QUIET_SECONDS)]
    fixed = [
        _fixed(site, say, name=f"neighbour, {what} variant fixed", variant=variant)
        for what, variant in (("most accurate", site.most_accurate), ("fastest", site.fastest))
    ]
    phases += [phase for phase, _ in fixed]
    (_, slow), (_, fast) = fixed
    # As far above what the fastest variant reaches beside the neighbour as below what the most accurate does.
    objective = max(1, round(math.sqrt(slow * fast)))
    say(f"beside the neighbour p95 on the server is {slow:.0f} ms, or {fast:.0f} ms; objective: p95 <= {objective} ms")
    site.apply(objectives={"latencyP95Milliseconds": objective})
    site.settle_on(site.most_accurate, "edge-2", seconds=LONGEST_SECONDS)
    phases.append(_phase("quiet again", QUIET_SECONDS))
    say("the neighbour starts on edge-2, and the variant is free to change")
    hog, onset = site.start_hog("edge-2"), time.time()
    left = watch.until("down", lambda: site.active("edge-2") != site.most_accurate, seconds=LONGEST_SECONDS)
    switched = time.time()
    phases.append(Phase(name="neighbour, before the switch", start=onset, end=switched))
    phases.append(_phase("neighbour, after the switch", 2 * QUIET_SECONDS))
    say("the neighbour goes")
    site.delete_pod(hog)
    gone = time.time()
    back = watch.until("up", lambda: site.active("edge-2") == site.most_accurate, seconds=LONGEST_SECONDS)
    phases.append(Phase(name="alone, before the switch", start=gone, end=time.time()))
    phases.append(_phase("alone, after the switch", QUIET_SECONDS))
    stayed = site.active("edge-1") == site.most_accurate
    requests = {node: client.stop() for node, client in clients.items()}
    console.print(table(phases, requests, objective=objective))
    console.print(site.kubernetes.kubectl("get", "mpf,mep"), soft_wrap=True)
    return _judge(console, phases, requests, objective=objective, onset=onset, left=left, back=back, stayed=stayed)


def _judge(
    console: Console,
    phases: list[Phase],
    requests: dict[str, list[Request]],
    *,
    objective: float,
    onset: float,
    left: bool,
    back: bool,
    stayed: bool,
) -> int:
    """Say what holds; the exit code."""
    within = {phase.name: phase.of(requests["edge-2"]) for phase in phases}
    fixed, after = within["neighbour, most accurate variant fixed"], within["neighbour, after the switch"]
    busy = next(phase.end for phase in phases if phase.name == "neighbour, after the switch")
    during = [request for request in requests["edge-2"] if request.due < busy]
    slow_for = last_slow_answer(during, onset=onset, objective=objective)
    lasted = "no end" if slow_for is None else f"{slow_for:.1f} s"
    failed = [request for recorded in requests.values() for request in recorded if request.error]
    claims = {
        "edge-2 went to a faster variant, and back": left and back,
        f"the switch helped: p95 {p95(after):.0f} ms, without it {p95(fixed):.0f} ms": p95(after) < p95(fixed),
        f"the objective of {objective:g} ms is met after the switch": p95(after) <= objective,
        f"from the neighbour's start to the last slow answer: {lasted}": slow_for is not None,
        "edge-1 did not move": stayed,
        f"no failed request: {sum(map(len, requests.values()))} sent": not failed,
        "each client was answered by its own node": len({entry.version for entry in requests["edge-1"]}) == 1,
    }
    for claim, holds in claims.items():
        console.print(f"[green]holds[/green]  {claim}" if holds else f"[red]FAILS[/red]  {claim}", soft_wrap=True)
    return 0 if all(claims.values()) else 1


def _phase(name: str, seconds: float) -> Phase:
    """So long nothing is changed."""
    start = time.time()
    time.sleep(seconds)
    return Phase(name=name, start=start, end=time.time())


def _fixed(site: EdgeSite, say: Callable[[str], None], *, name: str, variant: str) -> tuple[Phase, float]:
    """A busy neighbour beside a variant that is pinned: the phase, and p95 as the server saw it at its end."""
    say(f"the neighbour starts on edge-2, where {variant} is pinned")
    pod = site.pod_on("edge-2")["metadata"]["name"]
    site.kubernetes.kubectl("annotate", "--overwrite", "pod", pod, f"edgefolio.dev/pin-variant={variant}")
    site.settle_on(variant, "edge-2")
    hog = site.start_hog("edge-2")
    phase = _phase(name, 2 * QUIET_SECONDS)
    traffic = site.endpoints()["edge-2"]["status"]["observation"]["traffic"]
    site.delete_pod(hog)
    site.kubernetes.kubectl("annotate", "pod", pod, "edgefolio.dev/pin-variant-")
    return phase, float(traffic.get("p95Milliseconds") or traffic["meanTotalMilliseconds"])


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
