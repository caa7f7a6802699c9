"""Stored objects of a version that does not exist yet: what is not understood takes nothing else with it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reconciled_site import VARIANTS, Site, published

from edgefolio.specification.portfolio_status import PortfolioStatus
from edgefolio_operator.kube import stored
from edgefolio_operator.kube.stored import read_stored

Path = tuple[str | int, ...]
NEW_CONDITION = {"type": "New", "status": "Perhaps", "reason": "New", "lastTransitionTime": "x"}


def rolling_out() -> Site:
    """A site of four endpoints in the midst of a rollout: half of them were sent to revision 2."""
    site = Site(nodes=4, rollout={"maxConcurrentPercent": 50, "analysisSeconds": 600}).served()
    site.edit(seed=8)
    site.cycle()
    site.end_job(published(2))
    site.cycle()
    site.cycle()
    assert sorted(revisions(site)) == [1, 1, 2, 2]
    return site


def revisions(site: Site) -> list[int]:
    return [entry["spec"]["revision"]["number"] for entry in site.endpoints.values()]


def with_new_fields(thing: Any) -> Any:
    """``thing`` with a field that nobody knows in every object."""
    if isinstance(thing, dict):
        return {**{key: with_new_fields(value) for key, value in thing.items()}, "newField": {"newer": ["yes"]}}
    return [with_new_fields(entry) for entry in thing] if isinstance(thing, list) else thing


def places(thing: Any, path: Path = ()) -> Iterator[Path]:
    """Every field and item of ``thing``, at any depth."""
    entries = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(thing: Any, path: Path, value: Any) -> Any:
    result = copy.deepcopy(thing)
    inner = result
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return result


def test_a_newer_version_is_reconciled_without_loss(caplog: pytest.LogCaptureFixture) -> None:
    site = rolling_out()
    told, before = copy.deepcopy(site.endpoints), site.targets()
    for entry in site.endpoints.values():
        entry["spec"] = with_new_fields(entry["spec"])
        entry["spec"]["switching"]["policy"] = "NewPolicy"
        entry["status"] = with_new_fields(entry.get("status") or {})
        if "decision" in entry["status"]:
            entry["status"]["decision"]["action"] = "NewAction"
        entry["status"]["conditions"] = [
            {"type": "New", "status": "Perhaps", "reason": "New", "lastTransitionTime": "x"}
        ]
    status = with_new_fields(site.portfolio["status"])
    status["rollout"]["phase"] = "NewPhase"
    status["job"]["outcome"] = "NewOutcome"
    status["conditions"].append(NEW_CONDITION)
    site.portfolio["status"] = status
    stored._log_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        site.cycle()
        lines = len(caplog.records)
        site.cycle()
    after = PortfolioStatus.model_validate(site.portfolio["status"])
    assert [entry.number for entry in after.revisions] == [1, 2]
    assert after.current_revision == 2
    assert site.targets() == before
    assert revisions(site) == [entry["spec"]["revision"]["number"] for entry in told.values()], "nobody is sent back"
    assert after.rollout is not None
    assert (after.rollout.revision, after.rollout.from_revision, after.rollout.phase) == (2, 1, "Progressing")
    assert any("rollout.phase" in record.message for record in caplog.records)
    assert len(caplog.records) == lines > 0, "each kind of loss is logged once"


def test_only_the_entry_that_is_not_understood_is_lost() -> None:
    status = rolling_out().portfolio["status"]
    status["revisions"][1]["variants"][0]["rank"] = "first"
    status["conditions"][0]["status"] = "Perhaps"
    status["rollout"]["reason"] = {"newer": "reason"}
    found = read_stored(PortfolioStatus, status)
    assert found is not None
    assert [len(entry.variants) for entry in found.revisions] == [len(VARIANTS), len(VARIANTS) - 1]
    assert len(found.conditions) == len(status["conditions"]) - 1
    assert found.rollout is not None
    assert found.rollout.reason is None
    assert found.job is not None
    assert found.endpoints is not None


@pytest.mark.parametrize("change", [{"outcome": "NewOutcome"}, {"outcome": None, "name": 7}, {"specificationHash": {}}])
def test_a_making_is_not_run_again_because_its_outcome_is_not_understood(change: dict[str, Any]) -> None:
    site = Site().served()
    site.jobs.clear()  # their time to live is over
    site.portfolio["status"]["job"] |= change
    for _ in range(3):
        site.cycle()
    assert not site.jobs
    status = PortfolioStatus.model_validate(site.portfolio["status"])
    assert status.job is not None
    assert status.job.outcome == "Succeeded"
    assert status.current_revision == 1
    site.edit(seed=8)
    site.cycle()
    assert len(site.jobs) == 1, "another pruning run begins"


def test_a_making_without_a_revision_whose_outcome_is_not_understood_waits_for_the_user() -> None:
    site = Site()
    site.cycle()
    site.jobs.clear()
    site.portfolio["status"]["job"]["outcome"] = "NewOutcome"
    for _ in range(3):
        site.cycle()
    assert not site.jobs
    assert "make-requested-at" in site.portfolio["status"]["job"]["message"]
    site.portfolio["metadata"]["annotations"]["edgefolio.dev/make-requested-at"] = "now"
    site.cycle()
    assert len(site.jobs) == 1


def test_a_job_that_runs_is_watched_though_its_entry_is_not_understood() -> None:
    site = Site()
    site.cycle()
    before = list(site.jobs)
    site.portfolio["status"]["job"]["outcome"] = "NewOutcome"
    site.cycle()
    assert site.portfolio["status"]["job"]["outcome"] == "Running"
    assert list(site.jobs) == before


@settings(deadline=None, max_examples=60)
@given(data=st.data(), value=st.sampled_from(["NewWord", "", {"newer": "shape"}, ["newer"], 10**12, None]))
def test_no_field_of_another_version_unassigns_an_endpoint(data: st.DataObject, value: Any) -> None:
    site = SERVED()
    name = data.draw(st.sampled_from(sorted(site.endpoints)), label="endpoint")
    which = data.draw(st.sampled_from(["endpoint spec", "endpoint status", "portfolio status"]), label="part")
    thing = site.portfolio if which == "portfolio status" else site.endpoints[name]
    part = which.split()[-1]
    path = data.draw(st.sampled_from(sorted(places(thing[part]), key=str)), label="place")
    thing[part] = changed(thing[part], path, value)
    before = {endpoint: entry["spec"]["nodeName"] for endpoint, entry in site.endpoints.items()}
    site.cycle()
    site.cycle()
    assert site.endpoints.keys() == before.keys()
    for entry in site.endpoints.values():
        assert entry["spec"]["revision"]["number"] == 1
        # Without the figures of the variant that serves, another one may be chosen; never none.
        assert entry["spec"]["targetVariant"] == "dense" or path[:1] == ("revisions",)
        assert entry["spec"]["targetVariant"] is not None


class _Served:
    """Copies of one site that serves: making it anew for each example would take most of the time."""

    def __init__(self) -> None:
        self._site: Site | None = None

    def __call__(self) -> Site:
        self._site = self._site or Site().served()
        return copy.deepcopy(self._site)


SERVED = _Served()
