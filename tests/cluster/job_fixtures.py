"""Fixtures of the tests with Kubernetes' own Job controller: a namespace, an operator, and a test as the kubelet."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_site import Operator
from control_plane import Kubernetes, install_resources
from job_site import JobControlPlane, JobSite
from kubernetes_bed import bed_programs

#: What asks for a first pruning run.
MAKING: dict[str, Any] = {
    "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
    "data": {"trainingURI": "builtin:digits"},
    "methods": {"sparseTraining": {}},
}
#: The annotation that asks for another pruning run, or another look.
REQUEST = "edgefolio.dev/make-requested-at"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    binaries = bed_programs("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kubectl")
    with JobControlPlane(binaries=binaries, folder=tmp_path_factory.mktemp("controllers")) as kubernetes:
        install_resources(kubernetes)
        yield kubernetes


@pytest.fixture
def namespace(controllers: Kubernetes) -> Kubernetes:
    """In place of the one without controllers."""
    name = f"making-{next(_numbers)}"
    controllers.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return controllers.within(name)


@pytest.fixture
def site(namespace: Kubernetes, tmp_path: Path, start: Callable[..., Operator]) -> Iterator[JobSite]:
    start()
    made = JobSite(namespace, tmp_path)
    yield made
    namespace.kubectl("delete", "mpf", "--all", "--wait=false")
    for portfolio in namespace.request("GET", namespace.path("edgefolio.dev/v1alpha1", "ModelPortfolio"))["items"]:
        namespace.kubectl(
            *("patch", "mpf", portfolio["metadata"]["name"], "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        )


def published(site: JobSite) -> bool:
    """Whether a revision serves."""
    return bool(site.status().get("currentRevision"))
