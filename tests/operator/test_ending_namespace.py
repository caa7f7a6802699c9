"""A namespace that is being deleted waits for no operator, also where the operator itself goes with it."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from fake_api import FakeApi
from reconciled_site import IMAGES, NOW, Site
from test_controller import OURS, Cluster, run, until
from test_reclaiming import DELETE, FINALIZER, Ending

from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.kube.client import ApiError
from edgefolio_operator.reconcilers.portfolio import plan_portfolio

ENDS = {"metadata": {"name": "models", "deletionTimestamp": "2027-01-15T08:00:00Z"}}


def test_the_finalizer_goes_before_the_portfolio_is_deleted() -> None:
    site = Site(repository=DELETE).served()
    site.portfolio["metadata"]["finalizers"] = [FINALIZER]
    snapshot = PortfolioSnapshot(
        portfolio=copy.deepcopy(site.portfolio), jobs=list(site.jobs.values()), namespace=ENDS, pods=site.pods
    )
    plan = plan_portfolio(snapshot, resources=ResourceView(), images=IMAGES, states={}, epoch=1, now=NOW + 60)
    assert plan.finalizer is False
    (event,) = [event for event in plan.events if event.about_namespace]
    assert (event.reason, event.warning) == ("RepositoryRetained", True)
    assert "ModelPortfolio digits" in event.message
    assert "s3://bucket/portfolios" in event.message


def test_a_portfolio_of_which_nothing_was_made_has_no_finalizer_and_holds_nobody() -> None:
    site = Site(repository=DELETE, job={"env": [{"name": "HOME", "value": "/x"}]})
    assert site.cycle().finalizer is None, "no Job is made"
    site = Ending()
    site.jobs, site.job_pods = {}, []
    for field in ("job", "revisions", "publishingSince"):
        site.portfolio["status"].pop(field, None)
    plan = site.step()
    assert plan is not None
    assert (site.is_released, plan.apply, plan.events) == (True, (), ())


@pytest.mark.parametrize("source", [True, False])
def test_nothing_is_planned_that_would_be_refused(source: bool) -> None:
    site = Site(repository=DELETE) if source else Site(source=None, repository={"uri": "s3://bucket/portfolios"})
    snapshot = PortfolioSnapshot(portfolio=copy.deepcopy(site.portfolio), pods=site.pods)
    planned = partial(plan_portfolio, resources=ResourceView(), images=IMAGES, states={}, epoch=1, now=NOW)
    assert "Job" in [document["kind"] for document in planned(snapshot).apply]
    assert planned(replace(snapshot, namespace=ENDS)).apply == ()


class Ended(FakeApi):
    """An API server on which the namespace of the portfolios is being deleted, which the operator may not read."""

    ends = False
    refused = 0

    async def _request(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        if self.ends and method == "POST" and "/namespaces/models/" in path:
            self.refused += 1
            raise ApiError(403, "Forbidden", "it is being terminated", causes=("NamespaceTerminating",))
        return await super()._request(method, path, body, **options)


def test_the_finalizer_goes_where_the_api_server_alone_says_that_the_namespace_ends() -> None:
    async def work() -> None:
        cluster.add("one")
        await until(lambda: cluster.told("one") == 20)
        api.ends = True
        portfolio = copy.deepcopy(api.find("modelportfolios", "one"))
        portfolio["spec"]["repository"]["reclaimPolicy"] = "Delete"
        portfolio["metadata"]["finalizers"] = [FINALIZER]
        # Another Job would be made.
        portfolio["metadata"]["annotations"] = {"edgefolio.dev/make-requested-at": "again"}
        api.put(f"{OURS}/modelportfolios/one", portfolio)
        await until(lambda: not api.find("modelportfolios", "one")["metadata"].get("finalizers"))
        refused = api.refused
        assert refused
        await asyncio.sleep(1.2)
        assert (api.refused, api.find("modelportfolios", "one")["metadata"].get("finalizers")) == (refused, [])

    api = Ended()
    cluster = Cluster(api)
    run(cluster, work)


class Home(FakeApi):
    """An API server on which the operator's own namespace is being deleted, or not."""

    def __init__(self, *, ends: bool) -> None:
        super().__init__()
        self.ends = ends

    async def _request(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        is_tried = method == "POST" and (options.get("params") or {}).get("dryRun")
        if is_tried and self.ends:
            assert "/namespaces/system/" in path
            raise ApiError(403, "Forbidden", "it is being terminated", causes=("NamespaceTerminating",))
        return await super()._request(method, path, body, **options)


@pytest.mark.parametrize("ends", [True, False])
def test_an_operator_that_ends_with_its_namespace_leaves_no_finalizer(ends: bool) -> None:
    async def work() -> None:
        cluster.add("one")
        await until(lambda: cluster.told("one") == 20)
        portfolio = copy.deepcopy(cluster.api.find("modelportfolios", "one"))
        portfolio["spec"]["repository"]["reclaimPolicy"] = "Delete"
        portfolio["metadata"]["finalizers"] = ["somebody.example/else"]
        cluster.api.put(f"{OURS}/modelportfolios/one", portfolio)
        await until(lambda: FINALIZER in finalizers())
        await cluster.controller.release_portfolios()
        assert finalizers() == ["somebody.example/else"] + ([] if ends else [FINALIZER])

    def finalizers() -> list[str]:
        found: list[str] = cluster.api.find("modelportfolios", "one")["metadata"].get("finalizers", [])
        return found

    cluster = Cluster(Home(ends=ends))
    run(cluster, work)
