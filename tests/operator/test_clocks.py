"""Clocks of nodes that are minutes off, or are set while they run: nothing is decided by that, and people are told."""

from __future__ import annotations

import asyncio
import copy
import time
from email.utils import formatdate
from typing import Any

import pytest
from fake_api import Object
from hypothesis import given
from hypothesis import strategies as st
from reconciled_site import NOW, Site, published
from test_controller import Cluster, run, until

from edgefolio.kubernetes.access import Access, Credentials
from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio.specification.endpoint import EndpointStatus
from edgefolio_operator.cluster_state.metrics_server import SampleClocks
from edgefolio_operator.cluster_state.report_clocks import TOLERANCE_SECONDS, WRITTEN_FIELD, ReportClocks, written_time
from edgefolio_operator.cluster_state.resource_usage import Sample
from edgefolio_operator.endpoints.endpoint import Endpoint, Surroundings
from edgefolio_operator.kube.cache import Change
from edgefolio_operator.kube.client import Api

OFFSETS = [-31_536_000.0, -600.0, 600.0, 86_400.0]


class Clocks:
    """Our wall clock and the one that only runs; the first can be set."""

    def __init__(self) -> None:
        self.wall, self.running = NOW, 1000.0

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.running += seconds


class Agent:
    """Reports of one agent as they arrive, and what is known of it then."""

    def __init__(self) -> None:
        self.ours = Clocks()
        self.reports = ReportClocks(clock=lambda: self.ours.wall, monotonic=lambda: self.ours.running)
        self.stored: Object | None = None

    def says(self, offset: float, *, late: float = 0.0, is_listed: bool = False, **status: Any) -> None:
        """A report of its clock arrives ``late`` seconds after it was written."""
        observation = {"time": time_text(self.ours.wall + offset - late)}
        after = {
            "metadata": {"name": "pod", "namespace": "models"},
            "status": {"observation": observation, **status},
        }
        self.reports.note(Change(before=self.stored, after=after, is_listed=is_listed))
        self.stored = after

    @property
    def offset(self) -> float:
        return self.reports.of(("models", "pod")).clock_offset


def of_clock(offset: float, document: Object) -> Object:
    """``document`` with all its times on another clock."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [moved(inner) for inner in value]
        is_time = isinstance(value, str) and value.startswith("20") and value.endswith("Z")
        return time_text(time_seconds(value) + offset) if is_time else value

    found: Object = moved(document)
    return found


@pytest.mark.parametrize("offset", OFFSETS)
def test_the_clock_of_an_agent_is_found_from_its_reports(offset: float) -> None:
    agent = Agent()
    agent.says(offset, is_listed=True)
    agent.ours.wait(30)
    agent.says(offset)
    assert agent.offset == pytest.approx(offset, abs=1)
    agent.ours.wait(30)
    agent.says(0.0)
    assert agent.offset == 0.0


def test_a_right_clock_is_right_however_late_a_report_comes() -> None:
    agent = Agent()
    agent.says(0.0, late=50, is_listed=True)
    assert agent.offset == 0.0
    agent.ours.wait(600)
    # The informer was cut off, and lists what came meanwhile.
    agent.says(0.0, late=55, is_listed=True)
    assert agent.offset == 0.0
    agent.says(0.0, late=5)
    assert agent.offset == 0.0


def test_a_step_of_our_own_clock_changes_what_we_know_by_the_step_and_no_decision() -> None:
    agent = Agent()
    agent.says(0.0)
    agent.ours.wall += 31_536_000
    hearing = agent.reports.of(("models", "pod"))
    assert agent.ours.wall + hearing.clock_offset == pytest.approx(NOW, abs=1)


def test_after_a_restart_the_api_server_says_what_an_old_report_is_worth() -> None:
    reports = ReportClocks(clock=lambda: NOW, monotonic=lambda: 5.0)
    entries = [
        {"manager": "edgefolio-operator", "time": time_text(NOW - 5)},
        {"manager": "edgefolio-agent", "subresource": "status", "time": time_text(NOW - 40)},
    ]
    endpoint: Object = {
        "metadata": {"name": "pod", "namespace": "models", "managedFields": entries},
        "status": {"observation": {"time": time_text(NOW - 640)}},
    }
    assert written_time(endpoint) == time_text(NOW - 40)
    reports.note(Change(before=None, after={**endpoint, WRITTEN_FIELD: written_time(endpoint)}, is_listed=True))
    assert reports.of(("models", "pod")).clock_offset == -600


def test_a_failure_is_dated_when_it_is_heard_of() -> None:
    agent = Agent()
    old = {"reason": "LoadFailed", "time": time_text(NOW - 5000)}
    agent.says(-600.0, is_listed=True, lastFailure=old)
    agent.ours.wait(30)
    agent.says(-600.0, lastFailure=old)
    first = agent.reports.of(("models", "pod")).failed_at
    assert first is not None
    assert first < NOW - 1000
    agent.ours.wait(30)
    agent.says(-600.0, lastFailure={**old, "time": time_text(agent.ours.wall - 600)})
    assert agent.reports.of(("models", "pod")).failed_at == agent.ours.wall


def test_a_failure_is_dated_also_where_nothing_is_observed() -> None:
    agent = Agent()
    failure = {"reason": "LoadFailed", "time": time_text(NOW - 600)}
    key: Object = {"metadata": {"name": "pod", "namespace": "models"}}
    agent.reports.note(Change(before=key, after={**key, "status": {"lastFailure": failure}}))
    assert agent.reports.of(("models", "pod")).failed_at == NOW
    agent.reports.note(Change(before=key, after=None))
    assert agent.reports.of(("models", "pod")).failed_at is None


@given(st.lists(st.tuples(st.sampled_from([0.0, 600.0, -600.0]), st.floats(0, 20), st.booleans()), max_size=20))
def test_the_offset_is_never_far_from_one_that_was_said(told: list[tuple[float, float, bool]]) -> None:
    agent = Agent()
    for offset, late, is_listed in told:
        agent.says(offset, late=late, is_listed=is_listed)
        agent.ours.wait(30)
        assert min(abs(agent.offset - each) for each in (0.0, 600.0, -600.0)) <= TOLERANCE_SECONDS


def site_with_clock(offset: float) -> tuple[list[Any], Site]:
    """A site where edge-1 has another clock: what its endpoints are told, cycle by cycle."""
    site = Site(nodes=2)
    site.cycle()
    site.end_job(published(1))
    site.cycle()
    site.cycle()
    site.clock_offsets = {"digits-edge-1": offset}
    told = []
    kept: dict[str, Any] = {}
    for slowdown in [1.0] * 3 + [5.0] * 6 + [1.0] * 25:
        for node in ("edge-1", "edge-2"):
            if node == "edge-1" and kept:
                site.endpoints["digits-edge-1"]["status"] = copy.deepcopy(kept)
            site.report(node, slowdown=slowdown)
        # The agent's own clock writes all its times.
        kept = copy.deepcopy(site.endpoints["digits-edge-1"]["status"])
        site.endpoints["digits-edge-1"]["status"] = of_clock(offset, kept)
        site.cycle(3)
        told.append([site.endpoints[f"digits-edge-{number}"]["spec"].get("targetVariant") for number in (1, 2)])
    return told, site


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_node_with_another_clock_works_as_any_other_and_is_named(offset: float) -> None:
    expected, right = site_with_clock(0.0)
    told, site = site_with_clock(offset)
    assert told == expected
    assert len({tuple(each) for each in told}) > 1, "a switch was asked for"
    counts = site.portfolio["status"]["endpoints"]
    assert counts == right.portfolio["status"]["endpoints"]
    assert counts["available"] == 2
    status, reason = site.condition("ClocksAgree")
    assert (status, reason) == ("False", "ClockSkew")
    assert "edge-1 is about" in site.message("ClocksAgree")
    assert right.condition("ClocksAgree") == ("True", "ClocksAgree")
    last = time_seconds(site.portfolio["status"]["lastSwitchTime"])
    assert abs(last - time_seconds(right.portfolio["status"]["lastSwitchTime"])) <= 1


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_dead_agent_with_another_clock_is_silent_as_any_other(offset: float) -> None:
    _, site = site_with_clock(offset)
    site.cycle(50)
    assert site.portfolio["status"]["endpoints"]["available"] == 2
    for _ in range(6):
        site.report("edge-2")
        site.cycle(20)
    assert site.portfolio["status"]["endpoints"]["available"] == 1


@pytest.mark.parametrize("offset", OFFSETS)
def test_samples_of_a_node_with_another_clock_are_used(offset: float) -> None:
    ours = Clocks()
    clocks = SampleClocks(clock=lambda: ours.wall, monotonic=lambda: ours.running)

    def sample(said: float) -> Sample:
        return Sample(cpu_cores=1.0, memory_bytes=1, time=said, window_seconds=15.0)

    for _ in range(4):
        ours.wait(15)
        found = clocks.nodes({"edge-1": sample(ours.wall - 10 + offset), "edge-2": sample(ours.wall - 10)})
    assert found["edge-1"].is_fresh(now=ours.wall, stale_after=60)
    assert found["edge-1"].time <= ours.wall - 10
    assert found["edge-2"].time == ours.wall - 10
    # One that stands still gets old.
    ours.wait(200)
    again = clocks.nodes({"edge-1": sample(ours.wall - 210 + offset), "edge-2": sample(ours.wall - 210)})
    assert not again["edge-1"].is_fresh(now=ours.wall, stale_after=60)
    assert not again["edge-2"].is_fresh(now=ours.wall, stale_after=60)


def test_the_clocks_of_nodes_that_are_gone_are_forgotten() -> None:
    clocks = SampleClocks()
    for number in range(3):
        clocks.nodes({f"edge-{number}": Sample(cpu_cores=1.0, memory_bytes=1, time=1.0, window_seconds=15.0)})
    assert list(clocks._sources) == ["edge-2"]


def test_a_report_that_has_run_out_says_nothing_about_objectives() -> None:
    site = Site(nodes=2)
    site.cycle()
    site.end_job(published(1))
    for _ in range(2):
        site.cycle()
        for node in ("edge-1", "edge-2") if site.endpoints else ():
            site.report(node)
    site.cycle(29)
    assert site.condition("ObjectivesMet") == ("True", "ObjectivesMet")
    site.cycle(2)
    assert site.condition("ObjectivesMet") == ("Unknown", "MissingMetrics")


async def reported(cluster: Cluster, *, clock_offset: float = 0.0) -> None:
    """The agent of the endpoint ``one-pod`` reports twice, by a clock that is off by so many seconds."""
    site = Site(nodes=1)
    site.endpoints["digits-edge-1"] = {"spec": {"targetVariant": "small", "revision": {"number": 1}}}
    path = "/apis/edgefolio.dev/v1alpha1/namespaces/models/modelendpoints/one-pod"
    for _ in range(2):
        site.now = time.time()
        site.report("edge-1")
        status = of_clock(clock_offset, site.endpoints["digits-edge-1"]["status"])
        cluster.api.put(path, {**cluster.api.find("modelendpoints", "one-pod"), "status": status})
        await asyncio.sleep(1.1)


def test_the_controller_says_which_node_has_another_clock() -> None:
    async def work() -> None:
        cluster.add("one")
        await until(lambda: cluster.told("one") == 20)
        await reported(cluster, clock_offset=-600)
        await until(lambda: bool(events(cluster)))
        counts = cluster.api.find("modelportfolios", "one")["status"]["endpoints"]
        assert (counts["available"], counts["meetingObjectives"]) == (1, 1)

    cluster = Cluster()
    run(cluster, work)
    (event,) = events(cluster)
    assert "edge is about 10 minutes behind" in event["message"]


def events(cluster: Cluster) -> list[Object]:
    found = [thing for place, thing in cluster.api.objects.items() if place[1] == "events"]
    return [event for event in found if event["reason"] == "ClockSkew"]


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
def test_an_operator_with_another_clock_than_the_api_server_gives_pods_their_time(ahead: float) -> None:
    """The API server is right, this operator's clock is ``ahead``."""
    api = Api(Access(lambda: Credentials(server="", namespace="x", tls=None, token=None)))
    assert api.clock_offset(time.time()) == 0.0
    for text in ("", "yesterday", formatdate(time.time() - ahead, usegmt=True)):
        api._note_date(text)
    assert api.clock_offset(time.time()) == pytest.approx(-ahead, abs=2)
    api._note_date(formatdate(time.time() - 5, usegmt=True))
    assert api.clock_offset(time.time()) == 0.0
    site = Site(nodes=1)
    metadata = {"name": "a", "annotations": {}, "creationTimestamp": time_text(site.now - ahead - 100)}
    pod: Object = {"metadata": metadata, "spec": {"nodeName": "edge-1"}, "status": {}}
    starting = Endpoint(surroundings=Surroundings(pod=pod, api_clock_offset=-ahead), spec=None, status=EndpointStatus())
    assert not starting.counts(now=site.now)
    assert starting.counts(now=site.now + 250)


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
def test_the_controller_works_with_a_clock_of_its_own(ahead: float) -> None:
    async def work() -> None:
        cluster.add("one")
        await until(lambda: cluster.told("one") == 20)
        await reported(cluster)
        await until(lambda: bool(events(cluster)))
        await until(lambda: counts(cluster).get("meetingObjectives") == 1)

    cluster = Cluster(clock=lambda: time.time() + ahead)
    run(cluster, work)


def counts(cluster: Cluster) -> Object:
    return cluster.api.find("modelportfolios", "one")["status"].get("endpoints") or {}
