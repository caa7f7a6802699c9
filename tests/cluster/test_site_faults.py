"""Links, processes and whole services that fail: serving goes on, and everything converges afterwards."""

from __future__ import annotations

import random
import subprocess
import time

import pytest
from bed_faults import YEAR, stepped_clock
from bed_machine import container_id
from cluster_site import wait_for
from edge_site import SYSTEM, EdgeSite

from edgefolio_operator.resources.triton_pod import CONNECTION_SECONDS

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def kill_operator(site: EdgeSite) -> None:
    """SIGKILL, and the pod with it: the kubelet would wait longer and longer before it starts the container again."""
    system = site.kubernetes.within(SYSTEM)
    selector = ("-l", "app.kubernetes.io/component=operator")
    system.kubectl("delete", "pod", *selector, "--grace-period=0", "--force", "--wait=false")


def test_a_node_that_nobody_can_connect_to(site: EdgeSite) -> None:
    """Behind NAT: everything the node starts goes out, nothing comes in."""
    rules = [
        [
            "-A",
            "FORWARD",
            "-o",
            "cni0",
            "-m",
            "conntrack",
            "--ctstate",
            "NEW",
            "!",
            "-s",
            "10.244.3.0/24",
            "-j",
            "DROP",
        ],
        ["-A", "INPUT", "-i", "eth0", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"],
    ]

    def iptables(*arguments: str) -> None:
        subprocess.run(["nsenter", "--net=/run/netns/edge-3", "iptables", "-w", *arguments], check=True)

    for rule in rules:
        iptables(*rule)
    try:
        site.serve_on("edge-1", "edge-2", "edge-3")
        site.settle_on(site.most_accurate, "edge-3", seconds=120)
        site.wait_ready(seconds=60)
        pod = site.pod_on("edge-3")["metadata"]["name"]
        site.kubernetes.kubectl("annotate", "pod", pod, f"edgefolio.dev/pin-variant={site.fastest}")
        site.settle_on(site.fastest, "edge-3")
    finally:
        for rule in rules:
            iptables("-D", *rule[1:])
        site.serve_on("edge-1", "edge-2")
        wait_for(lambda: set(site.endpoints()) == {"edge-1", "edge-2"}, seconds=90)


def test_a_cut_link(site: EdgeSite) -> None:
    """Two minutes without a link: clients on the node are served, Triton comes back, the agent decides alone."""
    site.apply(objectives={"latencyP95Milliseconds": site.objective()})
    pod = site.pod_on("edge-2")
    triton = container_id(pod, "triton")
    client = site.start_client("edge-2", address=f"{pod['status']['podIP']}:8001")
    hog = site.start_hog("edge-2", after_seconds=60)
    cut_at = time.time()
    site.machine.cut("edge-2")
    try:
        time.sleep(cut_at + 25 - time.time())
        killed_at = site.machine.kill("edge-2", triton)
        time.sleep(cut_at + 120 - time.time())
    finally:
        site.machine.heal("edge-2")
    wait_for(lambda: site.endpoints()["edge-2"]["status"]["activeVariant"] != site.most_accurate, seconds=60)
    site.delete_pod(hog)
    site.settle_on(site.most_accurate, "edge-2", seconds=300)
    requests = client.stop()
    failed = [request.due for request in requests if request.error]
    good = [request for request in requests if not request.error]
    # Failures are those of the killed Triton alone, and they end within 15 s.
    assert failed, "the killed Triton was never missed"
    assert min(failed) > killed_at - 1
    assert max(failed) < killed_at + 15
    alone = {request.version for request in good if cut_at + 60 < request.due < cut_at + 120}
    assert len(alone) > 1, "the agent did not go down by itself"


def test_services_that_are_down(site: EdgeSite) -> None:
    clients = [site.start_client(node) for node in ("edge-1", "edge-2")]
    for program in ("kube-apiserver", "s3", "metrics-server"):
        with site.machine.frozen(program):
            time.sleep(25)
        wait_for(lambda: site.condition("Ready")[0] == "True", seconds=90)
        assert site.active("edge-1") == site.active("edge-2") == site.most_accurate
    for client in clients:
        assert not [request for request in client.stop() if request.error]


def test_a_killed_agent(site: EdgeSite) -> None:
    client = site.start_client("edge-1")
    site.kill("edge-1", "agent")
    site.kubernetes.kubectl(
        "annotate", "pod", site.pod_on("edge-1")["metadata"]["name"], f"edgefolio.dev/pin-variant={site.fastest}"
    )
    site.settle_on(site.fastest, "edge-1", seconds=60)
    assert not [request for request in client.stop() if request.error]


def test_an_operator_killed_at_random_instants(site: EdgeSite) -> None:
    """Twenty kills while variants are pinned and freed: each time what was asked for is what is served."""
    client = site.start_client("edge-1")
    choice = random.Random(4)
    pod = site.pod_on("edge-1")["metadata"]["name"]
    for number in range(20):
        wanted = (site.fastest, site.most_accurate)[number % 2]
        site.kubernetes.kubectl("annotate", "--overwrite", "pod", pod, f"edgefolio.dev/pin-variant={wanted}")
        time.sleep(choice.uniform(0.0, 2.5))
        kill_operator(site)
        site.settle_on(wanted, "edge-1", seconds=120)
    assert not [request for request in client.stop() if request.error]


def test_kubelet_and_containerd_restarted(site: EdgeSite) -> None:
    client = site.start_client("edge-1")
    for program in ("kubelet", "containerd"):
        site.machine.restart("edge-1", program)
        time.sleep(15)
    site.settle_on(site.most_accurate, "edge-1", seconds=60)
    assert not [request for request in client.stop() if request.error]


def test_a_drained_node(site: EdgeSite) -> None:
    """A DaemonSet's pods stay in a drain; a deleted pod serves until its clients are gone, and is replaced."""
    client = site.start_client("edge-2", rate=4)
    before = site.pod_on("edge-2")["metadata"]["name"]
    site.kubernetes.kubectl("delete", "pod", before, "--wait=false")
    wait_for(lambda: site.pod_on("edge-2")["metadata"]["name"] != before, seconds=60)
    # Kubernetes takes the endpoint of the pod away a moment after the pod.
    wait_for(lambda: before not in {entry["metadata"]["name"] for entry in site.endpoints().values()}, seconds=60)
    site.settle_on(site.most_accurate, "edge-2", seconds=90)
    failed = [request for request in client.stop() if request.error]
    assert not failed, failed[:3]


def test_a_deleted_pod_whose_clock_was_set_back(site: EdgeSite) -> None:
    """Triton's connections do not end any more: whoever keeps one is served until the end, and then let go."""
    if not (site.machine.run / "edge-2" / "clock").exists():
        pytest.skip("the nodes' clocks cannot be stepped: start the bed with NODE_CLOCKS=yes")
    client = site.start_client("edge-2")
    with stepped_clock(site.machine, "edge-2", (20.0 * YEAR,), seconds=5):
        pass
    before = site.pod_on("edge-2")["metadata"]["name"]
    site.kubernetes.kubectl("delete", "pod", before, "--wait=true")
    wait_for(lambda: site.pod_on("edge-2")["metadata"]["name"] != before, seconds=60)
    wait_for(lambda: before not in {entry["metadata"]["name"] for entry in site.endpoints().values()}, seconds=60)
    site.settle_on(site.most_accurate, "edge-2", seconds=90)
    failed = [request for request in client.stop() if request.error]
    # The connection ends with the container, and with it at most the request that is under way.
    assert len(failed) <= 1, failed[:3]
    assert not [request for request in failed if "no available versions" in str(request.error)]


def test_a_client_comes_home(site: EdgeSite) -> None:
    """One that connected while its node had no Triton goes back to it, without a failed request."""
    pod = site.pod_on("edge-1")["metadata"]["name"]
    site.kubernetes.kubectl("annotate", "pod", pod, f"edgefolio.dev/pin-variant={site.fastest}")
    site.settle_on(site.fastest, "edge-1")
    site.serve_on("edge-1")
    try:
        wait_for(lambda: set(site.endpoints()) == {"edge-1"}, seconds=90)
        client = site.start_client("edge-2", rate=4)
        (elsewhere,) = {request.version for request in client.requests()}
    finally:
        site.serve_on("edge-1", "edge-2")
    site.settle_on(site.most_accurate, "edge-2", seconds=90)
    wait_for(lambda: client.requests()[-1].version != elsewhere, seconds=2 * CONNECTION_SECONDS)
    assert not [request for request in client.stop() if request.error]
