"""Agents that are not heard any more beside pods that are ready: their endpoints may serve, and that is said."""

from __future__ import annotations

from typing import Any

import pytest
from reconciled_site import Site

from edgefolio.specification.conditions import time_text

WORDS = "the agent is not heard any more"


def test_silence_is_told_apart_from_failure() -> None:
    site = Site().served()
    site.cycle(50)
    assert site.condition("Ready")[0] == "True", "a report that has just run out"
    site.cycle(60)
    assert site.condition("Ready") == ("False", "EndpointsUnavailable")
    assert "Of 2 of them the pod is ready and the agent is not heard any more" in site.message("Ready")
    # One is heard again.
    site.report("edge-1")
    site.cycle()
    assert "1 of 2 endpoints serve" in site.message("Ready")
    assert "Of 1 of them" in site.message("Ready")
    assert "Of 1 of them" in site.message("Degraded")
    site.report("edge-2")
    site.cycle()
    assert site.condition("Ready") == ("True", "Serving")
    assert WORDS not in site.message("Ready") + site.message("Degraded")


def test_pods_that_are_older_than_their_account_have_void_tokens() -> None:
    """Somebody deleted the account, and the operator made it again."""
    site = Site().served()
    for made_at, is_void in ((site.now - 3600, False), (site.now, True)):
        site.account = {"metadata": {"name": "edgefolio-agent", "creationTimestamp": time_text(made_at)}}
        site.cycle(150)
        assert site.condition("Ready") == ("False", "EndpointsUnavailable")
        assert ("2 of these pods are older than the agents' account" in site.message("Ready")) == is_void
        assert ("the agent's token and role" in site.message("Ready")) != is_void
    # A pod that was replaced has a token of the new one.
    site.pods[0]["metadata"]["creationTimestamp"] = time_text(site.now)
    site.cycle()
    assert "1 of these pods are older" in site.message("Ready")
    # Those that are heard again have theirs.
    for node in ("edge-1", "edge-2"):
        site.report(node)
    site.cycle()
    assert site.condition("Ready") == ("True", "Serving")


@pytest.mark.parametrize("told", [None, 7, "", "yesterday"])
def test_an_account_that_says_nothing_of_its_age_bars_nobody(told: Any) -> None:
    site = Site().served()
    site.account = {"metadata": {"name": "edgefolio-agent", "creationTimestamp": told}}
    site.cycle(150)
    assert "older than" not in site.message("Ready")


@pytest.mark.parametrize("broken", ["pod", "node"])
def test_where_the_pod_or_its_node_is_not_ready_nobody_claims_that_it_serves(broken: str) -> None:
    site = Site(nodes=1).served()
    assert site.nodes is not None
    found = site.pods[0] if broken == "pod" else site.nodes["edge-1"]
    found["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    site.cycle(400)
    assert WORDS not in site.message("Ready") + site.message("Degraded")


def test_an_endpoint_that_never_reported_is_not_silent() -> None:
    site = Site().served()
    for entry in site.endpoints.values():
        del entry["status"]
    site.cycle(400)
    assert site.condition("Ready")[0] == "False"
    assert WORDS not in site.message("Ready")
