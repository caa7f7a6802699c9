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
    """A whole cluster: control plane, three edge nodes, DNS, metrics, object storage."""
    binaries = _binaries("etcd", "kube-apiserver", "kubectl", "kubelet", "containerd", "coredns", "metrics-server")
    if os.geteuid() != 0:
        pytest.skip("nodes in namespaces of their own need root")
    subprocess.run([BED / "down.sh"], check=True, timeout=60)
    run = Path(os.environ.get("BED_RUN", "/tmp/edgefolio-bed"))
    try:
        subprocess.run([BED / "up.sh"], check=True, timeout=180)
        yield Kubernetes(binaries=binaries, kubeconfig=run / "kubeconfig")
    finally:
        subprocess.run([BED / "down.sh"], check=True, timeout=60)
