"""A real Kubernetes for the tests here: an API server alone within seconds, or nodes that run pods."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The helpers beside this file, under names that no other area uses.
sys.path.insert(0, str(Path(__file__).parent))

from bed_machine import bed_run, cpusets
from cluster_site import Operator
from control_plane import BED, Kubernetes
from edge_portfolio import IMAGES
from edge_site import EdgeSite, progress
from kubernetes_bed import api_server, bed_programs, namespace, unused_ports

__all__ = ["api_server", "namespace", "unused_ports"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if "cluster" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.nodes)


@pytest.fixture
def start(
    namespace: Any, tmp_path: Path, unused_ports: Callable[[int], list[int]]
) -> Iterator[Callable[..., Operator]]:
    """Starts operators; all of them end with the test, and their logs are shown."""
    started: list[Operator] = []

    def starting(
        identity: str = "operator-a", *, kubeconfig: Path | None = None, environment: dict[str, str] | None = None
    ) -> Operator:
        operator = Operator(
            kubeconfig or namespace.kubeconfig,
            namespace.namespace,
            tmp_path,
            identity=identity,
            ports=unused_ports(2),
            environment=environment or {},
        )
        started.append(operator)
        return operator

    yield starting
    for operator in started:
        operator.end()
        print(operator.log.read_text())


@pytest.fixture(scope="session")
def cluster() -> Iterator[Kubernetes]:
    """A whole cluster: control plane, three edge nodes, DNS, metrics, object storage.

    ``BED_KEEP=1`` uses a cluster that runs already and leaves it running: for whoever writes these tests.
    """
    binaries = bed_programs("etcd", "kube-apiserver", "kubectl", "kubelet", "containerd", "coredns", "metrics-server")
    if os.geteuid() != 0:
        pytest.skip("nodes in namespaces of their own need root")
    run, keep = bed_run(), bool(os.environ.get("BED_KEEP"))
    kubernetes = Kubernetes(binaries=binaries, kubeconfig=run / "kubeconfig")
    if keep and run.exists():
        yield kubernetes
        return
    # A node's hog must leave the other serving node alone, on two processors as on many.
    settings = {"NODE_CLOCKS": "yes", "NODE_CPUSETS": os.environ.get("NODE_CPUSETS") or cpusets()}
    environment = {**os.environ, **settings}
    subprocess.run([BED / "down.sh"], check=True, timeout=60)
    try:
        done = progress("starting three nodes")
        subprocess.run([BED / "up.sh"], check=True, timeout=300, env=environment, stdout=subprocess.DEVNULL)
        done()
        yield kubernetes
    finally:
        if not keep:
            subprocess.run([BED / "down.sh"], check=True, timeout=60)


@pytest.fixture(scope="session")
def edge_site(cluster: Kubernetes) -> EdgeSite:
    """Edgefolio installed on the cluster, and a portfolio made and served on edge-1 and edge-2."""
    missing = [name for name in IMAGES if not (cluster.binaries.parent / "images" / f"edgefolio-{name}.tar").exists()]
    if missing:
        pytest.skip(f"images {', '.join(missing)} not built: {BED / 'build.sh'}")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the pruner's pod mounts this environment's torch, which must be for the image's Python 3.11")
    site = EdgeSite(cluster, bed_run())
    site.set_up()
    return site


@pytest.fixture
def site(edge_site: EdgeSite) -> EdgeSite:
    """The site, calm: as after its first pruning run, whatever the test before did to it."""
    edge_site.calm()
    return edge_site
