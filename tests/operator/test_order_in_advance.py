"""The order in advance: which endpoints get one, and that the operator goes on from where the agent went."""

from __future__ import annotations

from typing import Any

import pytest
from reconciled_site import Site

from edgefolio.specification.conditions import time_text
from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio.specification.validation.tolerant import understood


def orders(site: Site) -> list[Any]:
    return [entry["spec"].get("descendAtPercent") for entry in site.endpoints.values()]


def with_standbys() -> Site:
    """A site whose agents have reported a standby."""
    site = Site().served()
    assert orders(site) == [None, None], "nothing to go down to yet, or an agent of before"
    for entry in site.endpoints.values():
        entry["status"]["residentVariants"] = ["small", "dense"]
    site.cycle()
    return site


def test_an_endpoint_that_has_a_standby_gets_one_and_keeps_it() -> None:
    site = with_standbys()
    assert orders(site) == [125, 125]
    for entry in site.endpoints.values():
        entry["status"]["residentVariants"] = ["dense"]
    before = [dict(entry["spec"]) for entry in site.endpoints.values()]
    site.cycle()
    assert [entry["spec"] for entry in site.endpoints.values()] == before, "it is written once"


@pytest.mark.parametrize(
    "change", [{"switching": {"policy": "Recommend"}}, {"switching": {"standby": "None"}}, {"objectives": {}}]
)
def test_where_the_agent_is_not_free_or_has_no_standby_there_is_none(change: dict[str, Any]) -> None:
    site = with_standbys()
    site.edit(**change)
    site.cycle()
    assert orders(site) == [None, None]


def test_the_operator_goes_on_from_where_the_agent_went() -> None:
    site = with_standbys()
    left = site.targets()["edge-1"]
    site.report("edge-1", slowdown=1.0)
    status = site.endpoints["digits-edge-1"]["status"]
    status["activeVariant"] = "small"
    status["residentVariants"] = ["small"]
    status["observation"]["traffic"]["meanComputeMilliseconds"] = "2"
    status["decision"] |= {"decidedBy": "Agent", "reason": "LatencyViolated", "lastSwitchTime": time_text(site.now)}
    went = {"time": time_text(site.now), "fromVariant": left, "toVariant": "small", "reason": "LatencyViolated"}
    revision = status["activeRevision"]
    status["switches"] = [{**went, "fromRevision": revision, "toRevision": revision, "decidedBy": "Agent"}]
    assert left != "small"
    events = []
    for _ in range(3):
        events += site.cycle().events
        assert site.targets()["edge-1"] == "small"
    # One on the endpoint and one on the portfolio, with the agent's own reason.
    told = [event for event in events if f"{left} -> small, by the agent itself" in event.message]
    assert [event.reason for event in told] == ["LatencyViolated"] * 2


def test_an_order_that_was_stored_before_is_read() -> None:
    site = with_standbys()
    stored = dict(site.endpoints["digits-edge-1"]["spec"])
    del stored["descendAtPercent"]
    assert understood(EndpointSpecification, stored).descend_at_percent is None


def seconds_until_dense_is_ordered(*, left: str | None) -> float:
    """From the agent's step down to the operator's order back; ``left`` is what the agent reports to have left."""
    site = with_standbys()
    began = site.now
    while site.targets()["edge-1"] != "dense" or site.now == began:
        for node in site.nodes:
            site.report(node, obey=node != "edge-1")
        status = site.endpoints["digits-edge-1"]["status"]
        status["activeVariant"] = "small"
        status["residentVariants"] = ["small"]
        status["observation"]["traffic"] |= {"meanComputeMilliseconds": "2", "meanTotalMilliseconds": "2.5"}
        status["decision"] |= {"decidedBy": "Agent", "lastSwitchTime": time_text(began)}
        if left is not None:
            status["decision"]["descent"] = {"variant": left, "at": time_text(began)}
        site.now += 5
        site.cycle()
        assert site.now - began < 1000
    return float(site.now - began)


def test_it_takes_again_what_the_agent_left_sooner_than_anything_else() -> None:
    assert 2 * seconds_until_dense_is_ordered(left="dense") < seconds_until_dense_is_ordered(left=None)
