"""Fixtures of the tests of what users install: Helm, kustomize, and a real API server that judges both."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

# The helpers beside this file, those of the API server, and the generators, under names that no other area uses.
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))
sys.path.insert(0, str(Path(__file__).parent))

from control_plane import Kubernetes, NotBuilt, programs
from kubernetes_bed import api_server, namespace, unused_ports
from rendering import MONITORING, Chart, Kustomize

__all__ = ["api_server", "namespace", "unused_ports"]


def _program(name: str) -> Path:
    """A program of the test bed, or the user's own; or a skip that says how to get it."""
    try:
        return programs(name) / name
    except NotBuilt as error:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"no {name} on PATH, and {error}")
        return Path(found)


@pytest.fixture(scope="session")
def helm() -> Path:
    return _program("helm")


@pytest.fixture(scope="session")
def chart(helm: Path) -> Chart:
    return Chart(helm)


@pytest.fixture(scope="session")
def kustomize() -> Kustomize:
    return Kustomize(_program("kubectl"))


@pytest.fixture(scope="session")
def judge(api_server: Kubernetes) -> Kubernetes:
    """The API server with the namespaces that manifests name, which tell of every pod that is not restricted."""
    for name in ("edgefolio-system", "models", "other", "monitoring"):
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        api_server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    # Whatever of the Prometheus operator a document holds is taken; tests look at it by themselves.
    api_server.kubectl("apply", "--server-side", "-f", "-", stdin=MONITORING)
    api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    return api_server
