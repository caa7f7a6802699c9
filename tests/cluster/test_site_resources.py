"""Processors of a pod's own, and memory that runs out while a variant is loaded: what kubelet and kernel decide."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from bed_machine import container_id
from cluster_site import wait_for
from edge_portfolio import MODEL, SERVE_LABEL, SPEC
from edge_site import EdgeSite

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

NODE = "edge-3"
LABEL = f"{SERVE_LABEL}-exclusive"
#: More threads than the one processor that the pod gets.
THREADS = 4
#: A fraction of what the process of a backend takes.
ROOM_BYTES = 16 * 2**20


@contextmanager
def exclusive_processors(site: EdgeSite) -> Iterator[None]:
    """The kubelet of :data:`NODE` gives guaranteed pods processors of their own (CPU manager, policy ``static``)."""
    file = site.machine.run / NODE / "kubelet.yaml"
    before = file.read_text()
    states = site.machine.run / NODE / "kubelet" / "cpu_manager_state"
    try:
        # A tenth is reserved, and so one whole processor is nobody's own; pods may use the rest of it.
        file.write_text(before + "cpuManagerPolicy: static\nkubeReserved: {cpu: 100m}\n")
        states.unlink(missing_ok=True)
        site.machine.restart(NODE, "kubelet")
        yield
    finally:
        file.write_text(before)
        states.unlink(missing_ok=True)
        site.machine.restart(NODE, "kubelet")


def follower(name: str) -> dict[str, Any]:
    """A portfolio that serves what the first one published, in a guaranteed pod."""

    def guaranteed(cpu: str, memory: str) -> dict[str, Any]:
        return {kind: {"cpu": cpu, "memory": memory} for kind in ("requests", "limits")}

    managed = {
        **SPEC["serving"]["managed"],
        "nodeSelector": {LABEL: "yes"},
        "resources": guaranteed("1", "512Mi"),
        "agentResources": guaranteed("200m", "384Mi"),
    }
    spec = {
        "repository": {"uri": SPEC["repository"]["uri"], "secretRef": {"name": "s3-read"}},
        "serving": {"modelName": MODEL, "threads": THREADS, "managed": managed},
        "switching": SPEC["switching"],
    }
    return {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelPortfolio",
        "metadata": {"name": name},
        "spec": spec,
    }


def process_in(site: EdgeSite, node: str, container: str) -> psutil.Process:
    pod = site.pod_on(node)
    return psutil.Process(site.machine.process_of(node, container_id(pod, container)))


@pytest.mark.skipif((psutil.cpu_count() or 1) < 2, reason="one processor is the system's")
def test_a_pod_with_a_processor_of_its_own_computes_on_it(site: EdgeSite) -> None:
    """Four threads are asked for and one processor is given: the backend takes one, and switches as ever."""
    nodes = site.kubernetes.within("default")
    with exclusive_processors(site):
        nodes.kubectl("label", "--overwrite", "node", NODE, f"{LABEL}=yes")
        try:
            site.kubernetes.apply(follower("exclusive"))
            site.wait_ready(name="exclusive", seconds=240)
            triton = process_in(site, NODE, "triton")
            (given,) = triton.cpu_affinity()
            for variant in (site.fastest, site.most_accurate):
                pod = site.pod_on(NODE)["metadata"]["name"]
                site.kubernetes.kubectl("annotate", "--overwrite", "pod", pod, f"edgefolio.dev/pin-variant={variant}")
                site.settle_on(variant, NODE, seconds=90)
                processes = [triton, *triton.children(recursive=True)]
                assert all(process.cpu_affinity() == [given] for process in processes)
        finally:
            site.kubernetes.kubectl("delete", "mpf", "exclusive", "--ignore-not-found", "--timeout=120s")
            nodes.kubectl("label", "node", NODE, f"{LABEL}-")
            wait_for(lambda: NODE not in site.endpoints(), seconds=120)


def test_a_load_that_runs_out_of_memory_leaves_an_endpoint_that_recovers(site: EdgeSite) -> None:
    """Whichever process the kernel ends: no answer is another variant's, and all is well once there is memory."""
    site.apply(switching={**SPEC["switching"], "quarantineSeconds": 10})
    client = site.start_client("edge-1")
    other = site.start_client("edge-2")
    pod = site.pod_on("edge-1")["metadata"]["name"]
    site.kubernetes.kubectl("annotate", "--overwrite", "pod", pod, f"edgefolio.dev/pin-variant={site.fastest}")
    site.settle_on(site.fastest, "edge-1")
    time.sleep(5)
    group = memory_group(process_in(site, "edge-1", "triton"))
    limit, failed = group / "memory.limit_in_bytes", oom_kills(group)
    before = limit.read_text()
    try:
        limit.write_text(str(unreclaimable(group) + ROOM_BYTES))
        site.kubernetes.kubectl("annotate", "pod", pod, "edgefolio.dev/pin-variant-")
        wait_for(lambda: oom_kills(group) > failed, seconds=60)
    finally:
        if limit.exists():
            limit.write_text(before)
    # What failed is not tried again for a while; meanwhile another variant serves.
    site.settle_on(site.most_accurate, "edge-1", seconds=180)
    assert site.endpoints()["edge-1"]["status"]["lastFailure"]["variant"] == site.most_accurate
    site.wait_ready(seconds=120)
    assert not other.failures()
    answers: dict[int, set[float]] = {}
    for request in client.stop():
        if request.error is None and request.version is not None and request.answer is not None:
            answers.setdefault(request.version, set()).add(round(request.answer, 2))
    assert len(answers) >= 2
    assert all(len(found) == 1 for found in answers.values())
    other.stop()


def memory_group(process: psutil.Process) -> Path:
    """The cgroup (v1) that bounds the memory of a container."""
    groups = Path(f"/proc/{process.pid}/cgroup").read_text()
    (path,) = re.findall(r"^\d+:memory:(/.*)$", groups, flags=re.MULTILINE) or [""]
    group = Path(f"/sys/fs/cgroup/memory{path}")
    if not (group / "memory.limit_in_bytes").exists():
        pytest.skip("the memory of a container is bounded by no cgroup (v1) here")
    return group


def unreclaimable(group: Path) -> int:
    """What the group holds beside files, which the kernel drops first."""
    found = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    files = int(found["total_inactive_file"]) + int(found["total_active_file"])
    return int((group / "memory.usage_in_bytes").read_text()) - files


def oom_kills(group: Path) -> int:
    """Processes of the group that the kernel has ended for want of memory."""
    if not group.exists():
        return 10**6
    found = re.search(r"^oom_kill (\d+)$", (group / "memory.oom_control").read_text(), flags=re.MULTILINE)
    return int(found[1]) if found else 0
