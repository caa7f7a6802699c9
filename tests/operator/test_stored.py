"""Objects that the release before stored (``stored/``, from 244bc78) are reconciled as that release would have done.

Each file holds what the API server had (``stored``), what that release's operator, just started, planned for it
(``plan``), what it then remembered of each endpoint (``states``) and what it told them in four further cycles
(``later``). Where a release is to plan otherwise, its file is recorded anew and the upgrade notes say so.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from reconciled_site import DAEMON_SET, Site, control
from test_reclaiming import Ending

from edgefolio.contract.order_reason import OrderReason
from edgefolio.decision import state_to_json
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import PortfolioStatus
from edgefolio.specification.resource import PortfolioSpecification

FILES = sorted((Path(__file__).parent / "stored").glob("*.json"))


def dump_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def restored(stored: dict[str, Any]) -> Site:
    """A site with these objects and an operator that has just started."""
    stored = copy.deepcopy(stored)
    is_deleted = "deletionTimestamp" in stored["portfolio"]["metadata"]
    site: Site = Ending() if is_deleted else Site()
    if isinstance(site, Ending):
        site.namespace = stored["namespace"]
    site.now, site.portfolio, site.nodes = stored["now"], stored["portfolio"], stored["nodes"]
    # As created, oldest first: the file has them by name.
    site.jobs = dict(sorted(stored["jobs"].items(), key=lambda job: str(job[1]["status"].get("startTime"))))
    site.job_pods, site.pods, site.endpoints = stored["jobPods"], stored["pods"], stored["endpoints"]
    site.daemon_set, site.service = stored["daemonSet"], stored["service"]
    _as_an_api_server_has_them(site)
    site.states, site.promises = {}, ()
    return site


def _as_an_api_server_has_them(site: Site) -> None:
    """Give uids, owners and that release's defaults, which the files lack: every stored object has them."""
    if site.endpoints and "switching" in site.portfolio["spec"]:
        site.portfolio["spec"]["switching"] |= {
            "standby": "None", "maxSwitchesPerHour": 12, **site.portfolio["spec"]["switching"]
        }  # fmt: skip
    for name, job in site.jobs.items():
        job["metadata"]["uid"] = name
    for pod in site.job_pods:
        name = pod["metadata"]["labels"]["job-name"]
        pod["metadata"] |= control("Job", name, name)
    if site.daemon_set is not None:
        site.daemon_set["metadata"]["uid"] = DAEMON_SET
    for pod in site.pods:
        pod["metadata"] |= control("DaemonSet", "digits", DAEMON_SET)


def told(site: Site) -> dict[str, list[Any]]:
    found = {}
    for name, entry in sorted(site.endpoints.items()):
        why = OrderReason.of(entry["metadata"], EndpointSpecification.model_validate(entry["spec"]))
        found[name] = [entry["spec"].get("targetVariant"), why.reason, why.message]
    return found


def as_before(document: dict[str, Any]) -> dict[str, Any]:
    """``document`` as that release wrote it: the reason of an order stood in its spec."""
    annotations = document["metadata"].get("annotations", {})
    # New since: a DaemonSet says how it was applied.
    annotations.pop("edgefolio.dev/applied-spec", None)
    if document["kind"] == "ModelEndpoint":
        assert not {"reason", "message"} & document["spec"].keys()
        why = OrderReason.of(document["metadata"], None)
        document["spec"] |= {"message": why.message} | ({} if why.reason is None else {"reason": why.reason})
        del document["metadata"]["annotations"]
    return document


def test_every_situation_is_stored() -> None:
    assert len(FILES) >= 14


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_plan_is_that_of_the_release_before(path: Path) -> None:
    dump = dump_of(path)
    site, expected = restored(dump["stored"]), dump["plan"]
    plan = site.step() if isinstance(site, Ending) else site.cycle()
    assert plan is not None
    assert [as_before(document) for document in json.loads(json.dumps(plan.apply))] == expected["apply"]
    assert list(plan.delete_jobs) == expected["deleteJobs"]
    assert plan.delete_daemon_set == expected["deleteDaemonSet"]
    assert list(plan.delete_endpoints) == expected["deleteEndpoints"]
    assert (plan.suspend_job, plan.finalizer) == (expected["suspendJob"], expected["finalizer"])
    assert [[event.endpoint, event.reason] for event in plan.events] == expected["events"]
    status = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    if not isinstance(site, Ending):
        # New since: taken from the oldest revision that was made here.
        made = [entry["publishedTime"] for entry in status.get("revisions", ()) if entry.get("specificationHash")]
        assert status.pop("publishingSince", None) == min(made, default=None)
    # Conditions that it did not know say more, and change nothing.
    known = {condition["type"] for condition in expected["status"]["conditions"]}
    status["conditions"] = [condition for condition in status["conditions"] if condition["type"] in known]
    assert status == expected["status"]
    remembered = {name: json.loads(state_to_json(state)) for name, state in sorted((plan.states or {}).items())}
    for state in remembered.values():
        # What the core has learned to remember for the standby, and of windows for an objective that changes.
        for name in ("calmSince", "slowestFactor", "slowestUpdatedAt"):
            state.pop(name, None)
        for name in ("budget", "knownLevel", "knownSeconds"):
            state.get("latencyTest", {}).pop(name, None)
        if not state.get("latencyTest", True):
            del state["latencyTest"]
    assert remembered == dump["states"]
    for cycle in dump["later"]:
        site.cycle(3)
        assert told(site) == cycle


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_stored_is_lost_in_reading(path: Path) -> None:
    stored = dump_of(path)["stored"]
    portfolio = stored["portfolio"]
    PortfolioSpecification.model_validate(portfolio["spec"])
    records: list[tuple[Any, Any]] = [(PortfolioStatus, portfolio.get("status"))]
    for endpoint in stored["endpoints"].values():
        records += [(EndpointSpecification, endpoint["spec"]), (EndpointStatus, endpoint.get("status"))]
    for model, document in records:
        if document is not None:
            read = model.model_validate(document)
            written = read.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
            assert written == document
