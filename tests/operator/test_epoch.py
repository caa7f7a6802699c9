"""The fencing epoch never goes back, and no Lease ends the operator, whatever it holds."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from fake_api import FakeApi, Object
from hypothesis import given
from hypothesis import strategies as st
from test_controller import Cluster, run, until

from edgefolio.specification.portfolio_status import PortfolioStatus
from edgefolio_operator.cluster_state.informers import Informers
from edgefolio_operator.kube.client import ApiError, _decoded, _event
from edgefolio_operator.kube.epoch import BELIEVED_ABOVE, LARGEST_EPOCH, SeenEpochs, epoch_of_lease
from edgefolio_operator.kube.leader_election import LEASE_SECONDS, LeaderElection
from edgefolio_operator.reconcilers.plan import ReconcilePlan
from edgefolio_operator.reconcilers.writer import LeaseLostError, PlanWriter

LEASES = "/apis/coordination.k8s.io/v1/namespaces/system/leases"
LEASE = f"{LEASES}/edgefolio-operator"
ENDPOINT = "/apis/edgefolio.dev/v1alpha1/namespaces/models/modelendpoints/one-pod"
NONSENSE: list[Any] = [None, True, -1, 2**63, 10**400, 1.5, "", "x", "0000-01-01T00:00:00Z", [], [1], {}, {"a": []}]


def holder(api: FakeApi, **options: Any) -> LeaderElection:
    return LeaderElection(api, name="edgefolio-operator", namespace="system", identity="us", **options)


def lease(api: FakeApi, **spec: Any) -> None:
    api.put(LEASE, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {}, "spec": spec})


def epochs(cluster: Cluster) -> list[int]:
    return [thing["spec"]["epoch"] for place, thing in cluster.api.objects.items() if place[1] == "modelendpoints"]


def test_a_deleted_lease_does_not_set_the_epoch_back() -> None:
    async def work() -> None:
        cluster.add("one")
        lease(cluster.api, holderIdentity="", leaseTransitions=6)
        await until(lambda: cluster.told("one") == 20)
        assert epochs(cluster) == [7]
        cluster.api.remove(LEASE)
        await cluster.controller.lease.try_once()
        assert cluster.controller.lease.epoch == 8
        cluster.ask("one", 30)
        await until(lambda: cluster.told("one") == 30)
        assert epochs(cluster) == [8]

    cluster = Cluster()
    run(cluster, work)


def test_an_operator_with_another_lease_begins_above_what_endpoints_hold() -> None:
    async def first() -> None:
        cluster.add("one")
        lease(cluster.api, holderIdentity="", leaseTransitions=6)
        await until(lambda: cluster.told("one") == 20)

    cluster = Cluster()
    run(cluster, first)
    cluster.api.remove(LEASE)
    moved = Cluster()
    moved.api.objects |= cluster.api.objects
    moved.api._version = cluster.api._version

    async def second() -> None:
        moved.ask("one", 30)
        await until(lambda: moved.told("one") == 30)
        assert epochs(moved) == [8]

    run(moved, second)


def test_agents_that_obey_a_higher_epoch_are_ordered_with_a_higher_one_and_the_user_is_told() -> None:
    async def work() -> None:
        cluster.add("one")
        await until(lambda: cluster.told("one") == 20)
        found = copy.deepcopy(cluster.api.find("modelendpoints", "one-pod"))
        cluster.api.put(ENDPOINT, {**found, "status": {"observedEpoch": 9}})
        await until(lambda: "OrderRefused" in reasons_of(cluster))
        await cluster.controller.lease.try_once()
        await until(lambda: epochs(cluster) == [10])
        await until(lambda: "OrdersAccepted" in reasons_of(cluster))

    cluster = Cluster()
    run(cluster, work)
    told = [thing["reason"] for place, thing in cluster.api.objects.items() if place[1] == "events"]
    assert told.count("OrderRefused") == 1


def test_one_that_lies_about_its_epoch_uses_none_up() -> None:
    told = [{"spec": {"epoch": 5}, "status": {"observedEpoch": 2**53 - 1}}, {"spec": {"epoch": 5}}]
    assert SeenEpochs.of(told) == SeenEpochs(ordered=5, obeyed=0)
    near = [{"spec": {"epoch": 5}, "status": {"observedEpoch": 5 + BELIEVED_ABOVE}}]
    assert SeenEpochs.of(near).obeyed == 5 + BELIEVED_ABOVE
    assert SeenEpochs.of([{"spec": {"epoch": 2**53}}]) == SeenEpochs()

    async def work() -> None:
        api, now = FakeApi(), 0.0
        claimed = SeenEpochs(ordered=1, obeyed=2)
        election = holder(api, clock=lambda: now, seen=lambda: claimed)
        raised = []
        for _ in range(1000):
            now += 5
            await election.try_once()
            assert election.epoch is not None
            if raised[-1:] != [election.epoch]:
                raised.append(election.epoch)
            # Always one more than it is ordered with.
            claimed = SeenEpochs(ordered=election.epoch, obeyed=election.epoch + 1)
        assert len(raised) <= 10

    asyncio.run(work())


def test_an_epoch_may_be_larger_than_a_lease_counts() -> None:
    async def work() -> None:
        api = FakeApi()
        election = holder(api, seen=lambda: SeenEpochs(ordered=2**31 + 4))
        await election.try_once()
        assert election.epoch == 2**31 + 5
        stored = api.find("leases", "edgefolio-operator")
        assert stored["spec"]["leaseTransitions"] == 2**31 - 1
        assert epoch_of_lease(stored) == 2**31 + 5
        await election.try_once()
        assert election.epoch == 2**31 + 5

    asyncio.run(work())


FIELDS = ["holderIdentity", "leaseDurationSeconds", "leaseTransitions", "acquireTime", "renewTime"]


@given(
    nonsense=st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(NONSENSE)),
    annotation=st.sampled_from(NONSENSE),
    whole=st.sampled_from([None, *NONSENSE]),
)
def test_a_lease_that_holds_nonsense_is_taken_in_the_end(nonsense: dict[str, Any], annotation: Any, whole: Any) -> None:
    async def work() -> None:
        api, now = FakeApi(), 0.0
        spec: Any = {"holderIdentity": "another", "leaseDurationSeconds": 15, "leaseTransitions": 3, **nonsense}
        spec = spec if whole is None else whole
        metadata = {"annotations": {"edgefolio.dev/epoch": annotation}}
        api.put(LEASE, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec})
        election = holder(api, clock=lambda: now)
        await election.try_once()
        now += 121
        await election.try_once()
        assert election.epoch is not None
        assert 1 <= election.epoch <= LARGEST_EPOCH + 1

    asyncio.run(work())


@pytest.mark.parametrize("renewed", ["0001-01-01T00:00:00.000000Z", "2199-01-01T00:00:00.000000Z"])
def test_clocks_of_two_operators_are_not_compared(renewed: str) -> None:
    async def work() -> None:
        api, now = FakeApi(), 0.0
        election = holder(api, clock=lambda: now)
        for step in range(4):
            # The other one renews: its time differs each time, by whatever clock.
            lease(api, holderIdentity="another", leaseDurationSeconds=15, renewTime=f"{renewed[:-2]}{step}Z")
            await election.try_once()
            assert election.epoch is None
            now += LEASE_SECONDS - 1
        now += LEASE_SECONDS
        await election.try_once()
        assert election.epoch is not None

    asyncio.run(work())


def test_what_is_answered_does_not_end_the_election() -> None:
    class Broken(FakeApi):
        answers: Any = 0

        async def get(self, path: str, *, selector: str = "") -> Object:
            self.answers += 1
            found: Object = _decoded([b"<html>", b"[]", b"[" * 100_000, b"null"][self.answers % 4])
            return found

    async def work() -> None:
        api = Broken()
        election = holder(api)
        for _ in range(4):
            with pytest.raises(ApiError):
                await election.try_once()
        task = asyncio.create_task(election.run())
        await asyncio.sleep(0.05)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(work())
    for line in (b"1", b"{}", b'{"type": 1, "object": {}}', b'{"type": "ADDED", "object": []}'):
        with pytest.raises(ApiError):
            _event(line)


def test_a_plan_of_an_earlier_epoch_is_not_written() -> None:
    """Leading again is not enough: another operator may have written meanwhile."""

    async def work() -> None:
        api, epoch = FakeApi(), 3
        informers = Informers(
            api,
            namespaces=(),
            reads_nodes=True,
            metrics_poll_seconds=15,
            on_change=lambda _: None,
            on_adopted_pod=lambda _: None,
            on_reading=lambda: None,
            is_active=lambda: True,
        )
        writer = PlanWriter(api, informers=informers, epoch=lambda: epoch)
        path = "/apis/edgefolio.dev/v1alpha1/namespaces/models/modelportfolios/one"
        portfolio = api.put(path, {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {}})
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "make"}}
        for plan in (
            ReconcilePlan(status=PortfolioStatus(current_revision=1)),
            ReconcilePlan(status=PortfolioStatus(), apply=(job,)),
            ReconcilePlan(status=PortfolioStatus(), delete_jobs=("make",)),
        ):
            with pytest.raises(LeaseLostError):
                await writer.write(portfolio, plan, epoch=2)
        assert api.written == []
        await writer.write(portfolio, ReconcilePlan(status=PortfolioStatus(), apply=(job,)), epoch=3)
        assert any(write.endswith("/jobs") for write in api.written)

    asyncio.run(work())


def reasons_of(cluster: Cluster) -> set[str]:
    status = cluster.api.find("modelportfolios", "one").get("status", {})
    return {entry["reason"] for entry in status.get("conditions", ())}


def test_an_api_server_out_of_reach_at_the_start_is_no_hung_process() -> None:
    async def work() -> None:
        cluster.controller._looked_at -= 1000
        await until(lambda: cluster.controller.pulse.cycle < 100)

    cluster = Cluster()
    cluster.api.delays = lambda _selector: 1000.0
    run(cluster, work)
