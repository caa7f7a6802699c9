"""The end of a portfolio whose revisions go with it, step by step; nobody is held for ever."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from reconciled_site import IMAGES, NOW, Site, control, published, stored

from edgefolio.contract.job_report import FailureReport
from edgefolio.specification.conditions import time_text
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.reconcilers.finalizer import plan_deletion
from edgefolio_operator.reconcilers.plan import ReconcilePlan
from edgefolio_operator.reconcilers.portfolio import plan_portfolio

FINALIZER = "edgefolio.dev/repository"
DELETE = {"uri": "s3://bucket/portfolios", "reclaimPolicy": "Delete"}


class Ending(Site):
    """A site whose portfolio has published and is being deleted."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(**{"repository": DELETE, **spec})
        self.cycle()
        self.end_job(published(1))
        self.cycle()
        self.portfolio["metadata"]["finalizers"] = [FINALIZER]
        self.portfolio["metadata"]["deletionTimestamp"] = time_text(self.now)
        self.namespace: dict[str, Any] = {"metadata": {"name": "models"}}

    def step(self, seconds: float = 1.0) -> ReconcilePlan | None:
        """One cycle ``seconds`` later; what it plans is written."""
        self.now += seconds
        snapshot = PortfolioSnapshot(
            portfolio=copy.deepcopy(self.portfolio),
            jobs=list(self.jobs.values()),
            job_pods=self.job_pods,
            namespace=self.namespace,
        )
        plan = plan_deletion(snapshot, images=IMAGES, now=self.now)
        if plan is None:
            return None
        for document in plan.apply:
            name = document["metadata"]["name"]
            self.jobs[name] = {**stored(document, name), "status": {}}
        for name in plan.delete_jobs:
            self.jobs.pop(name, None)
        self.portfolio["status"] = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if plan.finalizer is False:
            self.portfolio["metadata"]["finalizers"] = []
        return plan

    def end_reclaim(self, report: FailureReport | None = None) -> None:
        job = self.jobs["digits-reclaim"]
        kind = "Failed" if report else "Complete"
        job["status"]["conditions"] = [{"type": kind, "status": "True", "lastTransitionTime": time_text(self.now)}]
        message = report.to_message() if report else ""
        state = {"terminated": {"exitCode": 1 if report else 0, "message": message}}
        self.job_pods.append(
            {
                "metadata": {
                    "name": "digits-reclaim-x",
                    "labels": {"job-name": "digits-reclaim", "app.kubernetes.io/component": "reclaim"},
                    **control("Job", "digits-reclaim", "digits-reclaim"),
                },
                "status": {"phase": "Failed", "containerStatuses": [{"name": "pruner", "state": state}]},
            }
        )

    @property
    def is_released(self) -> bool:
        return self.portfolio["metadata"]["finalizers"] == []


@pytest.mark.parametrize(
    ("policy", "held", "wanted"),
    [("Delete", False, True), ("Delete", True, None), ("Retain", True, False), ("Retain", False, None)],
)
def test_the_finalizer_is_there_for_delete_alone(policy: str, held: bool, wanted: bool | None) -> None:
    site = Site(repository={**DELETE, "reclaimPolicy": policy})
    site.portfolio["metadata"]["finalizers"] = ["somebody.example/else", *([FINALIZER] if held else [])]
    assert site.cycle().finalizer is wanted


def test_without_the_finalizer_nothing_is_done() -> None:
    site = Ending()
    site.portfolio["metadata"]["finalizers"] = ["somebody.example/else"]
    assert site.step() is None


def test_revisions_are_deleted_and_the_portfolio_goes() -> None:
    site = Ending()
    plan = site.step()
    assert plan is not None
    assert [document["metadata"]["name"] for document in plan.apply] == ["digits-reclaim"]
    assert site.condition("Reclaiming") == ("True", "DeletingRevisions")
    plan = site.step()
    assert plan is not None
    assert (plan.apply, plan.finalizer) == ((), None)
    site.end_reclaim()
    plan = site.step()
    assert plan is not None
    assert plan.delete_jobs == ("digits-reclaim",)
    assert [event.reason for event in plan.events] == ["RepositoryReclaimed"]
    assert site.is_released


def test_a_running_making_is_ended_first() -> None:
    site = Ending()
    site.portfolio["metadata"].pop("deletionTimestamp")
    site.edit(seed=1)
    site.cycle()
    running = list(site.jobs)[-1]
    pod = {
        "metadata": {"name": "p", "labels": {"job-name": running, "app.kubernetes.io/component": "pruner"}},
        "status": {"phase": "Running"},
    }
    site.job_pods.append(pod)
    site.portfolio["metadata"]["deletionTimestamp"] = time_text(site.now)
    plan = site.step()
    assert plan is not None
    assert (plan.delete_jobs, plan.apply) == ((running,), ())
    assert site.condition("Reclaiming") == ("True", "StoppingJobs")
    plan = site.step()
    assert plan is not None
    assert plan.apply == (), "its pod may still publish"
    site.job_pods.remove(pod)
    plan = site.step()
    assert plan is not None
    assert len(plan.apply) == 1


def test_a_pod_on_a_lost_node_is_not_waited_for_for_ever() -> None:
    site = Ending()
    labels = {"job-name": "gone", "app.kubernetes.io/component": "pruner"}
    site.job_pods.append({"metadata": {"name": "p", "labels": labels}, "status": {"phase": "Running"}})
    plan = site.step(60)
    assert plan is not None
    assert plan.apply == ()
    plan = site.step(60)
    assert plan is not None
    assert len(plan.apply) == 1


def test_a_failure_says_the_remedy_and_is_tried_again() -> None:
    site = Ending()
    site.step()
    denied = FailureReport(kind="BadInput", field="spec.repository.uri", problem="access is denied.", remedy="Mend it.")
    site.end_reclaim(denied)
    plan = site.step()
    assert plan is not None
    assert [(event.reason, event.warning) for event in plan.events] == [("ReclaimFailed", True)]
    (message,) = (entry["message"] for entry in site.portfolio["status"]["conditions"] if entry["type"] == "Reclaiming")
    assert "access is denied." in message
    assert "reclaimPolicy: Retain" in message
    plan = site.step()
    assert plan is not None
    assert (plan.events, plan.delete_jobs) == ((), ()), "said once"
    site.step(180)
    assert "digits-reclaim" not in site.jobs
    site.job_pods = [pod for pod in site.job_pods if pod["metadata"]["labels"]["job-name"] != "digits-reclaim"]
    site.step()
    assert "digits-reclaim" in site.jobs
    assert site.condition("Reclaiming") == ("True", "ReclaimFailed"), "until it is mended"
    site.end_reclaim()
    site.step()
    assert site.is_released


def test_retain_lets_it_go_at_any_time() -> None:
    site = Ending()
    site.step()
    site.end_reclaim(FailureReport(kind="Failed", problem="it is down."))
    site.step()
    site.edit(repository={**DELETE, "reclaimPolicy": "Retain"})
    plan = site.step()
    assert plan is not None
    assert site.is_released
    assert plan.delete_jobs == ("digits-reclaim",)
    assert [event.reason for event in plan.events] == ["RepositoryRetained"]


@pytest.mark.parametrize("begun", [False, True])
def test_an_ending_namespace_is_not_held(begun: bool) -> None:
    site = Ending()
    if begun:
        site.step()
    site.namespace["metadata"]["deletionTimestamp"] = time_text(NOW)
    plan = site.step()
    assert plan is not None
    assert site.is_released
    (event,) = plan.events
    # Nothing can be written into the namespace itself any more.
    assert (event.about_namespace, event.warning) == (True, True)
    assert "s3://bucket/portfolios" in event.message


def test_an_ending_namespace_gets_no_finalizer() -> None:
    site = Site(repository=DELETE)
    snapshot = PortfolioSnapshot(
        portfolio=site.portfolio, namespace={"metadata": {"name": "models", "deletionTimestamp": "x"}}
    )
    plan = plan_portfolio(snapshot, resources=ResourceView(), images=IMAGES, states={}, epoch=1, now=NOW)
    assert plan.finalizer is None


def test_a_spec_that_cannot_be_read_holds_nobody() -> None:
    site = Ending()
    site.portfolio["spec"]["seed"] = "x"
    plan = site.step()
    assert plan is not None
    assert site.is_released
    assert [(event.reason, event.warning) for event in plan.events] == [("RepositoryRetained", True)]


def test_a_job_of_an_earlier_portfolio_of_this_name_says_nothing() -> None:
    site = Ending()
    site.step()
    site.end_reclaim()
    site.jobs["digits-reclaim"]["metadata"]["annotations"]["edgefolio.dev/specification-hash"] = "another uid"
    plan = site.step()
    assert plan is not None
    assert plan.delete_jobs == ("digits-reclaim",)
    assert not site.is_released
    plan = site.step()
    assert plan is not None
    assert len(plan.apply) == 1
