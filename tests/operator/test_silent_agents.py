"""Agents that are not heard any more beside pods that are ready: their endpoints may serve, and that is said."""

from __future__ import annotations

import pytest
from reconciled_site import Site

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
