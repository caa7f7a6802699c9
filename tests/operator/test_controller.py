"""The controller with an API server in memory: one portfolio does not delay another, and what they share is shared."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable

import pytest
from fake_api import FakeApi, Object
from prometheus_client import CollectorRegistry
from reconciled_site import IMAGES, Site, control, published

from edgefolio.specification.portfolio_status import RevisionStatus
from edgefolio_operator.kube.client import ApiError
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.reconcilers.controller import Controller
from edgefolio_operator.settings import Settings

OURS = "/apis/edgefolio.dev/v1alpha1/namespaces/models"
REVISION = RevisionStatus(
    number=1,
    manifest_digest=published(1).manifest_digest,
    published_time="2027-01-01T00:00:00Z",
    variants=published(1).variants,
)


class Cluster:
    """Portfolios with one pod each, all on one node, and the controller that looks after them."""

    def __init__(self, api: FakeApi | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.api = api or FakeApi()
        settings = Settings(images=IMAGES, identity="test", cycle_seconds=0.5, metrics_port=0, probe_port=0)
        self.controller = Controller(self.api, settings, Metrics(CollectorRegistry()), clock=clock)
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        node = {"metadata": {"name": "edge"}, "status": {**ready, "allocatable": {"cpu": "4", "memory": "2Gi"}}}
        self.api.put("/api/v1/nodes/edge", {"apiVersion": "v1", "kind": "Node", **node})
        self.api.put("/api/v1/namespaces/models", {"apiVersion": "v1", "kind": "Namespace", "metadata": {}})

    def add(self, name: str, *, adopts: str = "", created: str = "2027-01-01T00:00:00Z") -> None:
        """A portfolio with a published revision; one that makes its pod, or adopts those of ``adopts``."""
        portfolio = copy.deepcopy(Site().portfolio)
        portfolio["metadata"] = {"annotations": {}, "creationTimestamp": created}
        portfolio["spec"]["repository"]["uri"] += f"/{name}"
        revision = REVISION.model_dump(mode="json", by_alias=True, exclude_none=True)
        if adopts:
            portfolio["spec"]["serving"] |= {"mode": "Adopt", "adopt": {"selector": {"matchLabels": {"app": adopts}}}}
        else:
            self.pod(f"{name}-pod", {"edgefolio.dev/portfolio": name})
        self.api.put(f"{OURS}/modelportfolios/{name}", {**portfolio, "status": {"revisions": [revision]}})

    def pod(self, name: str, labels: dict[str, str]) -> None:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        made_by = labels.get("edgefolio.dev/portfolio")
        # The server in memory takes the path for the uid.
        uid = f"/apis/apps/v1/namespaces/models/daemonsets/{made_by}"
        owner = control("DaemonSet", str(made_by), uid) if made_by else {}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"labels": {"edgefolio.dev/endpoint": "true", **labels}, **owner},
            "spec": {"nodeName": "edge"},
            "status": ready,
        }
        self.api.put(f"/api/v1/namespaces/models/pods/{name}", pod)

    def ask(self, name: str, milliseconds: int) -> None:
        """A user wants another latency."""
        portfolio = copy.deepcopy(self.api.find("modelportfolios", name))
        portfolio["spec"]["objectives"]["latencyP95Milliseconds"] = milliseconds
        self.api.put(f"{OURS}/modelportfolios/{name}", portfolio)

    def told(self, name: str) -> int | None:
        """The latency that the endpoint of a portfolio is told."""
        found = [thing for place, thing in self.api.objects.items() if place[1] == "modelendpoints"]
        specs = [thing["spec"] for thing in found if thing["spec"]["portfolioRef"]["name"] == name]
        return specs[0]["objectives"].get("latencyP95Milliseconds") if specs else None


async def until(holds: Callable[[], bool], *, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


def run(cluster: Cluster, work: Callable[[], Awaitable[None]]) -> None:
    async def running() -> None:
        controller = asyncio.create_task(cluster.controller.run())
        try:
            await work()
            assert not controller.done()
        finally:
            controller.cancel()
            await asyncio.gather(controller, return_exceptions=True)

    asyncio.run(running())


def test_a_portfolio_whose_writes_hang_does_not_delay_another(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        cluster.add("slow")
        cluster.add("quick")
        await until(lambda: cluster.told("slow") == cluster.told("quick") == 20)
        cluster.api.hangs = lambda path: "/slow" in path
        cluster.ask("slow", 30)
        await asyncio.sleep(0.6)
        cluster.ask("quick", 40)
        await until(lambda: cluster.told("quick") == 40, seconds=2)
        cluster.ask("quick", 50)
        await until(lambda: cluster.told("quick") == 50, seconds=2)
        assert cluster.told("slow") == 20
        assert cluster.controller.pulse.cycle < 2

    cluster = Cluster()
    run(cluster, work)


def test_a_key_is_not_planned_by_two_workers_and_an_idle_site_is_not_written() -> None:
    async def work() -> None:
        cluster.add("one")
        await until(lambda: cluster.told("one") == 20)
        await asyncio.sleep(1.5)
        cluster.api.written.clear()
        await asyncio.sleep(1.2)
        leases = [write for write in cluster.api.written if "/leases/" in write]
        assert cluster.api.written == leases
        for milliseconds in range(30, 40):
            cluster.ask("one", milliseconds)
        await until(lambda: cluster.told("one") == 39, seconds=2)
        orders = [write for write in cluster.api.written if "modelendpoints" in write]
        assert len(orders) <= 2, "changes that come together are one plan"

    cluster = Cluster()
    run(cluster, work)


def test_the_endpoints_of_a_portfolio_that_is_gone_go_with_it() -> None:
    async def work() -> None:
        cluster.add("one")
        await until(lambda: cluster.told("one") == 20)
        cluster.api.remove(f"{OURS}/modelportfolios/one")
        await until(lambda: cluster.told("one") is None)

    cluster = Cluster()
    run(cluster, work)


def test_a_pod_goes_to_the_oldest_claimant_and_to_the_next_when_that_is_gone() -> None:
    async def work() -> None:
        cluster.pod("shared", {"app": "x", "edgefolio.dev/portfolio": "young"})
        cluster.add("young", created="2027-01-02T00:00:00Z")
        cluster.api.remove("/api/v1/namespaces/models/pods/young-pod")
        await until(lambda: cluster.told("young") == 20)
        stored = cluster.api.find("modelendpoints", "shared")
        cluster.add("old", adopts="x")
        await until(lambda: "PodClaimed" in conditions(cluster, "young"))
        # The pod lacks what an adopted one needs; what counts is that it was let go.
        await until(lambda: cluster.told("young") is None)
        assert stored["spec"]["portfolioRef"]["name"] == "young"
        cluster.api.remove(f"{OURS}/modelportfolios/old")
        await until(lambda: cluster.told("young") == 20)

    cluster = Cluster()
    run(cluster, work)


def test_pods_that_a_changed_selector_no_longer_finds_are_let_go() -> None:
    async def work() -> None:
        cluster.pod("shared", {"app": "x", "edgefolio.dev/portfolio": "young"})
        cluster.add("young", created="2027-01-02T00:00:00Z")
        cluster.api.remove("/api/v1/namespaces/models/pods/young-pod")
        cluster.add("old", adopts="x")
        await until(lambda: "PodClaimed" in conditions(cluster, "young"))
        cluster.api.delays = lambda selector: 1.0 if selector == "app=none" else 0.0
        portfolio = copy.deepcopy(cluster.api.find("modelportfolios", "old"))
        portfolio["spec"]["serving"]["adopt"] = {"selector": {"matchLabels": {"app": "none"}}}
        cluster.api.put(f"{OURS}/modelportfolios/old", portfolio)
        # The new list comes later than the next plans, and is empty: no change of a pod follows it.
        await until(lambda: cluster.told("young") == 20)

    cluster = Cluster()
    run(cluster, work)


@pytest.mark.parametrize("state", ["deleted", "refused"])
def test_a_portfolio_that_is_not_planned_lets_go_of_pods_that_an_older_one_has(state: str) -> None:
    async def work() -> None:
        cluster.add("young", created="2027-01-02T00:00:00Z")
        await until(lambda: cluster.told("young") == 20)
        portfolio = copy.deepcopy(cluster.api.find("modelportfolios", "young"))
        if state == "deleted":
            # Somebody else's finalizer holds it.
            portfolio["metadata"]["deletionTimestamp"] = "2027-01-03T00:00:00Z"
        else:
            portfolio["spec"]["objectives"]["latencyP95Milliseconds"] = -1
        cluster.api.put(f"{OURS}/modelportfolios/young", portfolio)
        await asyncio.sleep(0.7)
        cluster.pod("young-pod", {"app": "x", "edgefolio.dev/portfolio": "young"})
        cluster.add("old", adopts="x")
        await until(lambda: cluster.told("young") is None)

    cluster = Cluster()
    run(cluster, work)


def test_a_standby_forgets_portfolios_that_are_gone() -> None:
    async def work() -> None:
        cluster.add("stays")
        await until(lambda: cluster.told("stays") == 20)
        # Another operator takes over.
        lease = copy.deepcopy(cluster.api.find("leases", "edgefolio-operator"))
        lease["spec"] |= {"holderIdentity": "another", "leaseTransitions": 2}
        cluster.api.put("/apis/coordination.k8s.io/v1/namespaces/system/leases/edgefolio-operator", lease)
        await cluster.controller.lease.try_once()
        assert cluster.controller.lease.epoch is None
        for number in range(20):
            cluster.add(f"short-{number}")
        await asyncio.sleep(0.7)
        for number in range(20):
            cluster.api.remove(f"{OURS}/modelportfolios/short-{number}")
            cluster.api.remove(f"/api/v1/namespaces/models/pods/short-{number}-pod")
        await until(lambda: queued(cluster) <= {("models", "stays")}, seconds=3)

    cluster = Cluster()
    run(cluster, work)


def queued(cluster: Cluster) -> set[tuple[str, str]]:
    queue = cluster.controller._queue
    return {*queue._due, *queue._active}


def conditions(cluster: Cluster, name: str) -> set[str]:
    status = cluster.api.find("modelportfolios", name).get("status", {})
    return {entry["reason"] for entry in status.get("conditions", ())}


def test_a_selector_that_the_api_server_refuses_holds_up_nobody() -> None:
    """The definitions admit label keys, as -/x, that the API server takes for no selector."""

    class Strict(FakeApi):
        async def list(self, path: str, *, selector: str = "") -> tuple[list[Object], str]:
            if selector.startswith("-/"):
                raise ApiError(400, "BadRequest", "unable to parse requirement")
            return await super().list(path, selector=selector)

    async def work() -> None:
        cluster.add("quick")
        cluster.add("odd", adopts="x")
        portfolio = copy.deepcopy(cluster.api.find("modelportfolios", "odd"))
        portfolio["spec"]["serving"]["adopt"] = {"selector": {"matchLabels": {"-/x": "y"}}}
        cluster.api.put(f"{OURS}/modelportfolios/odd", portfolio)
        await until(lambda: cluster.told("quick") == 20)
        cluster.ask("quick", 40)
        await until(lambda: cluster.told("quick") == 40)
        await until(lambda: "NoPods" in conditions(cluster, "odd"))

    cluster = Cluster(Strict())
    run(cluster, work)
