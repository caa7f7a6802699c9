"""Fixtures of a real Kubernetes API server, for the tests of every area that needs one.

The programs come out of ``tests/cluster/bed/build.sh`` and are kept in the user's cache. Where they are missing the
tests skip and say which command builds them; nothing is built behind the user's back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from control_plane import ApiServer, Kubernetes, NotBuilt, free_ports, install_resources, programs

_numbers = itertools.count(1)


def bed_programs(*needed: str) -> Path:
    """Folder of the bed's programs, or a skip that says how to get them."""
    try:
        return programs(*needed)
    except NotBuilt as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """etcd and an API server on loopback, without nodes or controllers, and with our resource definitions."""
    binaries = bed_programs("etcd", "kube-apiserver", "kubectl")
    with ApiServer(binaries=binaries, folder=tmp_path_factory.mktemp("api-server")) as kubernetes:
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
