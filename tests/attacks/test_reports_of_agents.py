"""A node that was taken over writes what it likes into the status of its own ModelEndpoint: nobody else is touched.

More of it in ``tests/operator``: ``test_poisoned_objects.py`` (any field of any object), ``test_epoch.py``,
``test_rollout_failures.py``, ``test_clocks.py``; on a real API server: ``test_stored_times.py``, ``test_rights.py``.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "operator"))

from fake_api import FakeApi
from reconciled_site import Site, published
from test_controller import until
from test_poisoned_objects import OURS, STATUS, Cluster, running

from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio_operator.kube.event_recorder import Event, EventRecorder

LIES: dict[str, Any] = {
    "time of the year 0": {"decision": {**STATUS["decision"], "lastSwitchTime": "0000-01-01T00:00:00Z"}},
    "offset of 99 hours": {"observation": {**STATUS["observation"], "validUntil": "2026-01-01T00:00:00+99:99"}},
    "epoch that is the last": {"observedEpoch": 2**53},
    "epoch that is the next": {"observedEpoch": 2},
    "memory of the whole world": {"observation": {**STATUS["observation"], "memory": {"workingSetBytes": 2**53}}},
    "failure of all revisions": {"lastFailure": {**STATUS["lastFailure"], "revision": 2**24}},
    "not a status": [],
}


@pytest.mark.parametrize("lie", LIES)
def test_its_neighbours_get_their_orders_now_and_after_a_restart(lie: str) -> None:
    cluster = Cluster()

    async def work() -> None:
        async with running(cluster):
            await cluster.settled()
            status = {**STATUS, **LIES[lie]} if LIES[lie] else LIES[lie]
            found = cluster.api.find("modelendpoints", "hit-0")
            cluster.api.put(f"{OURS}/modelendpoints/hit-0", {**found, "status": status})
            cluster.ask(31)
            await until(lambda: cluster.has_told(31))
        async with running(cluster):
            cluster.ask(32)
            await until(lambda: cluster.has_told(32))
            assert {endpoint["spec"]["epoch"] for endpoint in cluster.endpoints().values()} <= {1, 2, 3, 4}

    asyncio.run(work())


def test_it_keeps_no_revision_off_the_others() -> None:
    site = Site(nodes=8, rollout={"analysisSeconds": 10}).served()
    site.edit(seed=1)
    site.cycle()
    site.end_job(published(2))
    for _ in range(80):
        site.cycle(5)
        for node in site.nodes or ():
            site.report(node, obey=node != "edge-1")
        failure = {"reason": "RevisionRefused", "message": "x", "revision": 2, "time": time_text(site.now)}
        site.endpoints["digits-edge-1"]["status"]["lastFailure"] = failure
    numbers = [entry["spec"]["revision"]["number"] for name, entry in sorted(site.endpoints.items())]
    assert numbers == [1] + [2] * 7


def test_it_uses_up_no_events_of_others() -> None:
    async def work() -> None:
        api = FakeApi()
        recorder = EventRecorder(api, clock=lambda: 0.0)
        portfolio = {"apiVersion": "a/b", "kind": "ModelPortfolio", "metadata": {"name": "hit", "namespace": "models"}}
        for number in range(100):
            await recorder.record(
                portfolio, Event(reason="InvalidReport", message=str(number), warning=True, is_of_agents=True)
            )
        flooded = len(api.objects)
        await recorder.record(portfolio, Event(reason="RolloutCompleted", message=""))
        assert len(api.objects) == flooded + 1
        assert flooded < 100

    asyncio.run(work())
    site = Site(nodes=2).served()
    site.endpoints["digits-edge-1"]["status"]["decision"]["lastSwitchTime"] = "0000-01-01T00:00:00Z"
    for kind, status, reason in (
        ("Synced", "False", "Unreachable"),
        ("KnownVulnerabilities", "True", "OutdatedTriton"),
    ):
        said = {"type": kind, "status": status, "reason": reason, "message": "words of its own"}
        site.endpoints["digits-edge-1"]["status"].setdefault("conditions", []).append(
            {**said, "lastTransitionTime": time_text(site.now)}
        )
    told = {event.reason: event.is_of_agents for event in site.cycle().events}
    assert {told[reason] for reason in ("InvalidReport", "RepositoryUnreachable", "OutdatedTriton")} == {True}


def test_it_says_nothing_about_the_future() -> None:
    site = Site(nodes=3).served()
    status = copy.deepcopy(site.endpoints["digits-edge-1"]["status"])
    status["decision"]["lastSwitchTime"] = "2199-12-31T23:59:59Z"
    site.endpoints["digits-edge-1"]["status"] = status
    site.cycle()
    assert time_seconds(site.portfolio["status"]["lastSwitchTime"]) <= site.now
    assert site.portfolio["status"]["endpoints"]["meetingObjectives"] == 3
