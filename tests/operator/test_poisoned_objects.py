"""Whatever a stored object holds, it harms its own endpoint or portfolio alone.

The real controller, with any field of any object replaced by nonsense, within what the definitions admit and outside.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import pytest
from fake_api import FakeApi, Object
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from played_reports import VARIANTS, holding_decision, steady_observation
from prometheus_client import CollectorRegistry
from reconciled_site import IMAGES, Site, control, published
from test_controller import REVISION, until

from edgefolio.contract.endpoint_report import report_of_decision, report_of_observation
from edgefolio.decision.types import MemoryState, Quarantine, State, UpgradeBackoff
from edgefolio.specification.conditions import Condition, Failure, time_text
from edgefolio.specification.endpoint import EndpointStatus
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.reconcilers.controller import Controller
from edgefolio_operator.settings import Settings

OURS = "/apis/edgefolio.dev/v1alpha1/namespaces/models"
PODS = "/api/v1/namespaces/models/pods"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/system/leases/edgefolio-operator"
NOW = 1_800_000_000.0
READY = [
    {"type": "Ready", "status": "True", "lastTransitionTime": "2027-01-01T00:00:00Z", "reason": "x", "message": ""}
]
#: Times that the API server's check of date-time lets through are among them.
NONSENSE: list[Any] = [
    *(None, True, 0, -1, 2**63, 10**400, 1.5, 1e308, "", "x" * 3000, "\ud800", "NaN", "Infinity", "-0"),
    *("0000-01-01T00:00:00Z", "2026-01-01T00:00:00+99:99", "2026-01-01T00:00:00x5Z", "2026-01-01t00:00:00z"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01", "1970-01-01T00:00:00Z"),
    *("999999999.999999999", "-999999999.999999999", "0.000000001", "True", "Unknown", "Serving", "dense", "²"),
    *([], [None], ["x"] * 100, [[[[]]]], {}, {"a": {"b": []}}, [{}], [{"type": None}], {"type": "Ready"}),
]


def full_status() -> Object:
    """A report in which every field is set."""
    memory = MemoryState(limit_bytes=2**30, working_set_bytes=2**27, node_available_bytes=2**31, age_seconds=1)
    observation = steady_observation("small", compute_milliseconds=2.0, memory=memory)
    state = State(
        arrival_rate=3.0,
        last_switch_at=NOW - 60,
        recent_switches=(NOW - 60,),
        quarantined=(Quarantine(variant="dense", until=NOW, failures=1, cause="x"),),
        upgraded_variant="small",
        upgraded_at=NOW - 60,
        upgrade_backoffs=(UpgradeBackoff(variant="dense", until=NOW, bounces=1),),
    )
    status = EndpointStatus(
        observed_generation=1,
        observed_epoch=1,
        active_variant="small",
        active_revision=1,
        resident_variants=("small",),
        observation=report_of_observation(observation, now=NOW, valid_seconds=60),
        decision=report_of_decision(holding_decision(), state, decided_by_agent=False),
        last_failure=Failure(reason="LoadFailed", message="x", revision=1, variant="dense", time=time_text(NOW)),
        conditions=(Condition(type="Ready", status="True", reason="Serving", last_transition_time=time_text(NOW)),),
    )
    document: Object = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return document


STATUS = full_status()


class Cluster:
    """Portfolio ``hit`` with three pods, ``other`` with one, and every kind of object that the operator reads."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.sound: set[str] = {"hit-1", "hit-2", "other-0"}
        self.metrics: Object = {
            "nodes": [{"metadata": {"name": "edge"}, "timestamp": time_text(NOW), "window": "15s", "usage": usage()}],
            "pods": [
                {
                    "metadata": {"name": "hit-0", "namespace": "models"},
                    "timestamp": time_text(NOW),
                    "window": "15s",
                    "containers": [{"name": "triton", "usage": usage()}],
                }
            ],
        }
        node = {"conditions": READY, "allocatable": {"cpu": "4", "memory": "2Gi"}}
        self._put("/api/v1/nodes/edge", "Node", {"metadata": {"annotations": {}, "labels": {"a": "b"}}, "status": node})
        self._put("/api/v1/namespaces/models", "Namespace", {"metadata": {"annotations": {}}, "status": {}})
        for name, pods in (("hit", 3), ("other", 1)):
            portfolio = copy.deepcopy(Site().portfolio)
            portfolio["metadata"] = {"annotations": {"edgefolio.dev/make-requested-at": "x"}, "finalizers": ["a/b"]}
            portfolio["spec"]["repository"]["uri"] += f"/{name}"
            revision = REVISION.model_dump(mode="json", by_alias=True, exclude_none=True)
            self.api.put(f"{OURS}/modelportfolios/{name}", {**portfolio, "status": {"revisions": [revision]}})
            for number in range(pods):
                self._pod(name, f"{name}-{number}")

    async def settled(self) -> None:
        """The controller has planned for all, and every object that it makes is there."""
        await until(lambda: len(self.endpoints()) == 4 and len(self._all("jobs")) == 2)
        for name in self.endpoints():
            path = f"{OURS}/modelendpoints/{name}"
            self.api.put(path, {**self.api.find("modelendpoints", name), "status": copy.deepcopy(STATUS)})
        await until(lambda: all("status" in thing for thing in self._all("modelportfolios")))

    def endpoints(self) -> dict[str, Object]:
        return {thing["metadata"]["name"]: thing for thing in self._all("modelendpoints")}

    def ask(self, milliseconds: int) -> None:
        """The user wants another latency of both portfolios."""
        for name in ("hit", "other"):
            portfolio = copy.deepcopy(self.api.find("modelportfolios", name))
            if isinstance(portfolio.get("spec"), dict) and isinstance(portfolio["spec"].get("objectives"), dict):
                portfolio["spec"]["objectives"]["latencyP95Milliseconds"] = milliseconds
                self.api.put(f"{OURS}/modelportfolios/{name}", portfolio)

    def has_told(self, milliseconds: int) -> bool:
        told = {name: thing["spec"]["objectives"] for name, thing in self.endpoints().items() if name in self.sound}
        return set(told) == self.sound and {
            objectives.get("latencyP95Milliseconds") for objectives in told.values()
        } == {milliseconds}

    def poison(self, path: str, thing: Object) -> None:
        self.api.put(path, thing)

    def _pod(self, portfolio: str, name: str) -> None:
        labels = {"edgefolio.dev/endpoint": "true", "edgefolio.dev/portfolio": portfolio}
        status = {"phase": "Running", "conditions": READY, "containerStatuses": [{"name": "triton", "state": {}}]}
        # The server in memory takes the path for the uid.
        owner = control("DaemonSet", portfolio, f"/apis/apps/v1/namespaces/models/daemonsets/{portfolio}")
        metadata = {"labels": labels, "annotations": {}, **owner}
        pod = {"metadata": metadata, "spec": {"nodeName": "edge"}, "status": status}
        self._put(f"{PODS}/{name}", "Pod", pod)

    def _put(self, path: str, kind: str, thing: Object) -> None:
        self.api.put(path, {"apiVersion": "v1", "kind": kind, **thing})

    def _all(self, plural: str) -> list[Object]:
        return [thing for place, thing in self.api.objects.items() if place[1] == plural]


def usage() -> Object:
    return {"cpu": "100m", "memory": "64Mi"}


def places(thing: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every field and item in ``thing``."""
    if isinstance(thing, dict | list):
        for key, inner in thing.items() if isinstance(thing, dict) else enumerate(thing):
            yield (*path, key)
            yield from places(inner, (*path, key))


def replaced(thing: Any, place: tuple[Any, ...], value: Any) -> Any:
    """``thing`` with ``value`` at ``place``."""
    if not place:
        return value
    copied = copy.copy(thing)
    copied[place[0]] = replaced(copied[place[0]], place[1:], value)
    return copied


ANNOTATIONS = ["edgefolio.dev/pin-variant", "edgefolio.dev/paused", "slo.edgefolio.dev/max-memory", "a"]
#: What stands in a place that the API server keeps for itself, or that decides whose the object is, is not replaced.
KEPT = ("apiVersion", "kind", "name", "namespace", "resourceVersion", "generation", "labels")


def poisoned(thing: Any, poison: Poison) -> Any:
    """``thing`` with some of its parts replaced by nonsense."""
    for number, value in poison:
        open_places = [place for place in places(thing) if not (place[0] in KEPT or place[:2] in OWN)]
        if open_places:
            # A copy of its own: the same list must not be changed through two objects.
            thing = replaced(thing, open_places[number % len(open_places)], copy.deepcopy(value))
    return thing


Poison = list[tuple[int, Any]]
#: Numbers of places, and what is put there.
POISONS = st.lists(st.tuples(st.integers(0, 9999), st.sampled_from(NONSENSE)), min_size=1, max_size=3)
OWN = {("metadata", key) for key in KEPT} | {("spec", "portfolioRef"), ("metadata",)}


def within(cluster: Cluster, what: str) -> tuple[str, Object]:
    """Path and content of the object that is poisoned."""
    name = {"endpoint": "hit-0", "pod": "hit-0", "portfolio": "hit", "node": "edge", "namespace": "models"}.get(
        what, ""
    )
    plural = {"endpoint": "modelendpoints", "portfolio": "modelportfolios"}.get(what, f"{what}s")
    if what == "job":
        found = next(thing for thing in cluster._all("jobs") if thing["metadata"]["name"].startswith("hit"))
        status = {"startTime": time_text(NOW), "succeeded": 0, "conditions": copy.deepcopy(READY)}
        return f"/apis/batch/v1/namespaces/models/jobs/{found['metadata']['name']}", {**found, "status": status}
    if what == "lease":
        return LEASE, cluster.api.find("leases", "edgefolio-operator")
    path = {"node": "/api/v1/nodes/edge", "namespace": "/api/v1/namespaces/models"}.get(what, f"{OURS}/{plural}/{name}")
    thing = cluster.api.find(plural, name)
    if what in ("pod", "node", "namespace"):
        metadata = {**thing["metadata"], "annotations": dict.fromkeys(ANNOTATIONS, "1")}
        return f"{PODS}/{name}" if what == "pod" else path, {**thing, "metadata": metadata}
    return path, thing


#: A failing example is a wait that runs out: it is not made smaller.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
WORST = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
OBJECTS = ["endpoint", "endpoint", "endpoint", "pod", "portfolio", "job", "node", "namespace", "lease"]


@settings(WORST, max_examples=30)
@example(what="job", poison=[(333, "x" * 3000), (21, "Unknown")])
@example(what="pod", poison=[(378, "Infinity"), (31, "999999999.999999999"), (196, "Unknown")])
@given(what=st.sampled_from(OBJECTS), poison=POISONS)
def test_nonsense_harms_its_own_endpoint_alone(what: str, poison: Poison) -> None:
    """It arrives while the operator runs; then the operator is started anew with it."""
    cluster = Cluster()

    async def work() -> None:
        async with running(cluster):
            await cluster.settled()
            path, thing = within(cluster, what)
            if what == "portfolio":
                cluster.sound = {"other-0"}
            cluster.poison(path, poisoned(thing, poison))
            cluster.ask(31)
            if what == "lease":
                # Whoever is written there has it until it was silent for long enough.
                await asyncio.sleep(0.2)
                cluster.api.remove(LEASE)
            else:
                await until(lambda: cluster.has_told(31))
        async with running(cluster):
            cluster.ask(32)
            await until(lambda: cluster.has_told(32))

    asyncio.run(work())


@settings(WORST, max_examples=100)
@given(poison=POISONS, beat=st.sampled_from([0.0, 1.0, 1000.0]))
def test_others_are_told_the_same_as_without_the_nonsense(poison: Poison, beat: float) -> None:
    def told(status: Object) -> list[Any]:
        site = Site(nodes=3)
        site.cycle()
        site.end_job(published(1))
        site.cycle()
        site.cycle()
        for node in ("edge-1", "edge-2", "edge-3"):
            site.report(node)
        said = []
        for _ in range(3):
            site.endpoints["digits-edge-3"]["status"] = copy.deepcopy(status)
            for node in ("edge-1", "edge-2"):
                site.report(node, slowdown=5.0)
            site.cycle(beat + 1)
            said += [site.endpoints[f"digits-{node}"]["spec"] for node in ("edge-1", "edge-2")]
        return said

    assert told(poisoned(STATUS, poison)) == told(STATUS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lastSwitchTime", "0000-01-01T00:00:00Z"),
        ("lastSwitchTime", "2026-01-01T00:00:00+99:99"),
        ("upgradedTime", "2026-01-01T00:00:00x5Z"),
        ("recentSwitchTimes", ["2026-01-01t00:00:00z"]),
        ("quarantined", [{"variant": "x", "until": "9999-01-01T00:00:00Z", "failures": 1}]),
        ("transportMilliseconds", "1e9"),
        ("nodeFactorPercent", 10**400),
    ],
)
def test_what_cannot_be_read_is_said_on_the_portfolio(field: str, value: Any) -> None:
    cluster = Cluster()

    def said() -> list[Object]:
        return [event for event in cluster._all("events") if event["reason"] == "InvalidReport"]

    async def work() -> None:
        async with running(cluster):
            await cluster.settled()
            found = cluster.api.find("modelendpoints", "hit-0")
            status = {**STATUS, "decision": {**STATUS["decision"], field: value}}
            cluster.poison(f"{OURS}/modelendpoints/hit-0", {**found, "status": status})
            await until(lambda: bool(said()))
            await asyncio.sleep(0.3)

    asyncio.run(work())
    (event,) = said()
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("ModelPortfolio", "hit")
    assert f"hit-0 (status.decision.{field}" in event["message"]


@settings(WORST, max_examples=20)
@given(of_nodes=POISONS, of_pods=POISONS)
def test_nonsense_of_metrics_server_ends_nothing(of_nodes: Poison, of_pods: Poison) -> None:
    cluster = Cluster()
    nodes = poisoned({"items": cluster.metrics["nodes"]}, of_nodes)
    pods = poisoned({"items": cluster.metrics["pods"]}, of_pods)
    asked = cluster.api._request

    async def request(method: str, path: str, *rest: Any, **keywords: Any) -> Object:
        if "metrics.k8s.io" in path:
            found: Object = nodes if path.endswith("nodes") else pods
            return found
        return await asked(method, path, *rest, **keywords)

    cluster.api._request = request  # type: ignore[method-assign]

    async def work() -> None:
        async with running(cluster):
            await cluster.settled()
            cluster.ask(31)
            await until(lambda: cluster.has_told(31))

    asyncio.run(work())


class running:
    """The controller, while the block runs; it must not end by itself."""

    def __init__(self, cluster: Cluster) -> None:
        chosen = Settings(images=IMAGES, identity="test", cycle_seconds=0.05, metrics_port=0, probe_port=0)
        self._controller = Controller(cluster.api, chosen, Metrics(CollectorRegistry()))

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._controller.run())

    async def __aexit__(self, kind: object, *_: object) -> None:
        ended = self._task.done()
        self._task.cancel()
        result = (await asyncio.gather(self._task, return_exceptions=True))[0]
        assert not ended or kind is not None, result
        if ended and isinstance(result, Exception):
            raise result


def test_the_report_of_these_tests_is_sound() -> None:
    assert EndpointStatus.model_validate(STATUS).active_variant in {variant.name for variant in VARIANTS}
    assert published(1).manifest_digest == REVISION.manifest_digest
