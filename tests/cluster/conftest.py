"""Fixtures of the tests here: an API server alone within seconds, or a cluster with nodes that run pods."""

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

from cluster_site import Operator
from kubernetes_bed import BED, Kubernetes, api_server, bed_programs, namespace, unused_ports

__all__ = ["api_server", "namespace", "unused_ports"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


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
    binaries = bed_programs("etcd", "kube-apiserver", "kubectl", "kubelet", "containerd", "coredns", "metrics-server")
    if os.geteuid() != 0:
        pytest.skip("nodes in namespaces of their own need root")
    subprocess.run([BED / "down.sh"], check=True, timeout=60)
    run = Path(os.environ.get("BED_RUN", "/tmp/edgefolio-bed"))
    try:
        subprocess.run([BED / "up.sh"], check=True, timeout=180)
        yield Kubernetes(binaries=binaries, kubeconfig=run / "kubeconfig")
    finally:
        subprocess.run([BED / "down.sh"], check=True, timeout=60)
