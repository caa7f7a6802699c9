"""Clocks step, the store answers 503, the authority changes, revisions are poisoned, kubelets restart: under load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from bed_faults import YEAR, refusing_store, rotate_authority, stepped_clock
from cluster_site import wait_for
from edge_revisions import FOLLOWING, POISONED, publish_again, publish_poisoned
from edge_site import EdgeSite

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

NODES = ("edge-1", "edge-2")


@contextmanager
def load(site: EdgeSite, record: Callable[[str, object], None], nodes: Sequence[str] = NODES) -> Iterator[None]:
    """A client on each node asks while the block lasts; their requests and failures are counted, none may fail."""
    clients = [site.start_client(node) for node in nodes]
    yield
    # The last requests are sent when everything is over.
    time.sleep(3)
    for client in clients:
        wait_for(lambda client=client: client.requests(), seconds=60)
    requests = [request for client in clients for request in client.stop()]
    failed = [request for request in requests if request.error]
    record("requests", len(requests))
    record("failed", len(failed))
    assert len(requests) > 100
    assert not failed, failed[:3]


def obeys(site: EdgeSite, node: str, *, seconds: float = 120) -> None:
    """The agent on ``node`` hears the operator, and the operator the agent."""
    pod = site.pod_on(node)["metadata"]["name"]
    site.kubernetes.kubectl("annotate", "--overwrite", "pod", pod, f"edgefolio.dev/pin-variant={site.fastest}")
    site.settle_on(site.fastest, node, seconds=seconds)
    site.kubernetes.kubectl("annotate", "pod", pod, "edgefolio.dev/pin-variant-")
    site.settle_on(site.most_accurate, node, seconds=seconds)


@pytest.fixture
def following(site: EdgeSite) -> Iterator[EdgeSite]:
    """The site, which follows what is published in its bucket."""
    site.apply(**FOLLOWING)
    wait_for(lambda: (site.portfolio()["status"].get("check") or {}).get("outcome") == "Found", seconds=90)
    yield site
    site.apply()
    site.wait_ready(seconds=400)


def served(site: EdgeSite) -> set[int]:
    """The revisions that the endpoints serve."""
    return {entry.get("status", {}).get("activeRevision", 0) for entry in site.endpoints().values()}


def test_nothing_fails_while_clocks_step_by_seconds_and_by_years(
    site: EdgeSite, record_property: Callable[[str, object], None]
) -> None:
    if not (site.machine.run / "edge-1" / "clock").exists():
        pytest.skip("the nodes' clocks cannot be stepped: start the bed with NODE_CLOCKS=yes")
    with load(site, record_property):
        for node in NODES:
            with stepped_clock(site.machine, node, (10.0, -30.0, 20.0 * YEAR, -20.0 * YEAR), seconds=6):
                pass
            obeys(site, node)
    # Connections to a Triton whose clock was set back do not end by their age: the tests after this one want others.
    for node in NODES:
        site.kill(node, "triton")
    wait_for(lambda: not site.routed(*NODES), seconds=30)
    wait_for(lambda: site.routed(*NODES), seconds=60)


def test_nothing_fails_while_the_store_answers_503_in_a_rollout(
    following: EdgeSite, record_property: Callable[[str, object], None]
) -> None:
    with load(following, record_property):
        revision = publish_again(following).revision
        wait_for(lambda: following.portfolio()["status"]["revisions"][-1]["number"] == revision, seconds=60)
        with refusing_store():
            time.sleep(10)
        wait_for(lambda: served(following) == {revision}, seconds=300)
        wait_for(lambda: following.condition("Ready")[0] == "True", seconds=60)
    assert following.portfolio()["status"]["rollout"]["phase"] == "Completed"


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "at once"])
def test_nothing_fails_while_the_authority_of_the_api_server_is_rotated(
    site: EdgeSite, record_property: Callable[[str, object], None], announced: bool
) -> None:
    before = {node: site.pod_on(node)["metadata"]["uid"] for node in NODES}
    with load(site, record_property):
        rotate_authority(site.machine, announced=site.trusts if announced else None)
        wait_for(lambda: site.condition("Ready")[0] == "True", seconds=120)
        for node in NODES:
            obeys(site, node, seconds=180)
    assert {node: site.pod_on(node)["metadata"]["uid"] for node in NODES} == before


@pytest.mark.parametrize("poison", POISONED)
def test_nothing_fails_while_a_poisoned_revision_is_published_and_mended(
    following: EdgeSite, record_property: Callable[[str, object], None], poison: str
) -> None:
    (before,) = served(following)
    with load(following, record_property):
        poisoned = publish_poisoned(following, poison).revision
        end = time.monotonic() + 45
        while time.monotonic() < end:
            assert served(following) == {before}
            time.sleep(1)
        good = publish_again(following).revision
        assert good > poisoned
        wait_for(lambda: served(following) == {good}, seconds=300)


def test_nothing_fails_while_kubelets_restart(site: EdgeSite, record_property: Callable[[str, object], None]) -> None:
    with load(site, record_property):
        for node in NODES:
            site.machine.restart(node, "kubelet")
            time.sleep(15)
            # What ends after that is started again.
            site.kill(node, "agent")
            obeys(site, node)
        wait_for(lambda: site.routed(*NODES), seconds=60)
