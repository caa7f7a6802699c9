"""A real Kubernetes API server for the tests here: alone within seconds, or with nodes that run pods.

The programs come out of ``tests/cluster/bed/build.sh`` and are kept in the user's cache. Where they are missing the
tests skip and say which command builds them; nothing is built behind the user's back.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The helpers beside this file, under names that no other area uses.
sys.path.insert(0, str(Path(__file__).parent))

from cluster_site import Operator
from control_plane import BED, ApiServer, Kubernetes, NotBuilt, free_ports, install_resources, programs
from edge_site import IMAGES, EdgeSite, bed_run, cpusets, progress

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def _binaries(*needed: str) -> Path:
    """Folder of the bed's programs, or a skip that says how to get them."""
    try:
        return programs(*needed)
    except NotBuilt as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """etcd and an API server on loopback, without nodes or controllers, and with our resource definitions."""
    binaries = _binaries("etcd", "kube-apiserver", "kubectl")
    folder = tmp_path_factory.mktemp("api-server")
    with ApiServer(binaries=binaries, folder=folder) as kubernetes:
        install_resources(kubernetes)
        yield kubernetes


@pytest.fixture
def namespace(api_server: Kubernetes) -> Iterator[Kubernetes]:
    """A namespace of this test's own on the API server."""
    name = f"test-{next(_numbers)}"
    api_server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield api_server.within(name)
    # No controller finishes the removal; what is in it must not reach the next test.
    for kind in ("ModelPortfolio", "ModelEndpoint"):
        own = api_server.within(name)
        own.request("DELETE", own.path("edgefolio.dev/v1alpha1", kind))


@pytest.fixture(scope="session")
def unused_ports() -> Callable[[int], list[int]]:
    """Ports of loopback that nobody listens on."""
    return free_ports


@pytest.fixture
def start(
    namespace: Any, tmp_path: Path, unused_ports: Callable[[int], list[int]]
) -> Iterator[Callable[..., Operator]]:
    """Starts operators; all of them end with the test, and their logs are shown."""
    started: list[Operator] = []

    def starting(identity: str = "operator-a") -> Operator:
        operator = Operator(
            namespace.kubeconfig, namespace.namespace, tmp_path, identity=identity, ports=unused_ports(2)
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
    binaries = _binaries("etcd", "kube-apiserver", "kubectl", "kubelet", "containerd", "coredns", "metrics-server")
    if os.geteuid() != 0:
        pytest.skip("nodes in namespaces of their own need root")
    run, keep = bed_run(), bool(os.environ.get("BED_KEEP"))
    kubernetes = Kubernetes(binaries=binaries, kubeconfig=run / "kubeconfig")
    if keep and run.exists():
        yield kubernetes
        return
    # A node's hog must leave the other serving node alone, on two processors as on many.
    environment = {**os.environ, "NODE_CPUSETS": os.environ.get("NODE_CPUSETS") or cpusets()}
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
    """The site, calm: as after its first making, whatever the test before did to it."""
    edge_site.calm()
    return edge_site
