"""The history of an endpoint's variants, of what agents wrote into its status."""

from __future__ import annotations

import io
import json

import pytest
from reconciled_site import Site

from edgefolio.commands.terminal import Terminal
from edgefolio.specification.conditions import time_text
from edgefolio_kubectl.commands.history import history_document, show, switches_of
from edgefolio_kubectl.views import EndpointView, portfolio_views


def endpoints(site: Site) -> tuple[EndpointView, ...]:
    (portfolio,) = portfolio_views([site.portfolio], site.endpoints.values())
    return portfolio.endpoints


def shown(site: Site) -> str:
    file = io.StringIO()
    show(switches_of(endpoints(site)), Terminal(width=140, file=file), now=site.now)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


@pytest.fixture
def changed(serving: Site) -> Site:
    """Two nodes, one of which the agent changed alone."""
    first = {"time": time_text(serving.now - 7200), "toVariant": "dense", "toRevision": 1, "reason": "Initial"}
    down = {
        "time": time_text(serving.now - 90),
        "fromVariant": "dense",
        "fromRevision": 1,
        "toVariant": "small",
        "toRevision": 1,
        "reason": "LatencyViolated",
    }
    operator, agent = {"decidedBy": "Operator"}, {"decidedBy": "Agent"}
    serving.endpoints["digits-edge-1"]["status"]["switches"] = [first | operator, down | agent]
    serving.endpoints["digits-edge-2"]["status"]["switches"] = [first | operator]
    return serving


def test_newest_first_with_the_reason_and_who_decided(changed: Site) -> None:
    lines = [line for line in shown(changed).splitlines() if "digits-edge" in line]
    assert len(lines) == 3
    assert "90 s ago" in lines[0]
    assert "dense of revision 1" in lines[0]
    assert "small of revision 1" in lines[0]
    assert "LatencyViolated, the agent alone" in lines[0]
    assert all("2 h ago" in line and "nothing" in line and "Initial" in line for line in lines[1:])


def test_programs_get_every_field(changed: Site) -> None:
    document = json.loads(json.dumps(history_document(switches_of(endpoints(changed)))))
    assert document["switches"][0] == {
        "namespace": "models",
        "endpoint": "digits-edge-1",
        "node": "edge-1",
        "portfolio": "digits",
        "time": time_text(changed.now - 90),
        "fromVariant": "dense",
        "fromRevision": 1,
        "toVariant": "small",
        "toRevision": 1,
        "reason": "LatencyViolated",
        "decidedBy": "Agent",
    }
    assert document["switches"][1]["fromVariant"] is None


def test_agents_that_tell_nothing(serving: Site) -> None:
    assert "No endpoint has changed its variant yet" in shown(serving)
    assert history_document(switches_of(endpoints(serving))) == {"switches": []}


def test_the_operator_s_state_is_not_changed_by_it(changed: Site) -> None:
    assert [entry for entry in changed.cycle().apply if entry["kind"] == "ModelEndpoint"] == []
