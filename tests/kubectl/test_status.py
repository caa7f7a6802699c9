"""The status tree and its document, of what the operator's own cycle wrote."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from reconciled_site import NOW, Site

from edgefolio.commands.terminal import Terminal
from edgefolio.contract.job_report import FailureReport
from edgefolio.specification.conditions import time_text
from edgefolio_kubectl.display.status_document import status_document
from edgefolio_kubectl.display.status_tree import status_trees
from edgefolio_kubectl.views import PortfolioView, portfolio_views


def views(site: Site) -> tuple[PortfolioView, ...]:
    return portfolio_views([site.portfolio], site.endpoints.values())


def shown(site: Site, *, after: float = 2.0, width: int = 100, with_namespace: bool = False) -> str:
    file = io.StringIO()
    Terminal(width=width, file=file).print(
        status_trees(views(site), now=site.now + after, with_namespace=with_namespace)
    )
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def test_the_whole_tree(serving: Site) -> None:
    for _ in range(4):
        serving.report("edge-1", slowdown=4.0, met=False, obey=False)
        serving.cycle()
    assert (
        shown(serving)
        == """\
digits: Ready, Serving: 2 of 2 endpoints serve a verified variant.
├── asked: p95 at most 20 ms; policy Auto; model digits at grpc://digits.models.svc:8001
├── ObjectivesMet False, ObjectivesNotMet: 1 of 2 endpoints meet their objectives, 1 do not.
├── NodeMetricsAvailable False, MetricsStale: There is no sample of the last 60 s of edge-1, edge-2.
│   Decisions rest on what the agents report.
├── job digits-make-5c77a1fb: Succeeded
├── revision 1, current, 7 s old, manifest 000000000000
│   └── dense     82.00 %  p95 12.0 ms  32 MiB  serves on 2
│       small     81.00 %   p95 2.4 ms  16 MiB
└── endpoints: 2 of 2 available, 1 of 2 inside the objectives
    ├── digits-edge-1 on edge-1: dense -> small, objectives missed
    │   ├── p95 about 48.5 ms of 20 ms, 4.0 requests/s, 4.00x the profile's time, memory 128 MiB of
    │   │   1024 MiB, seen 3 s ago
    │   └── Switch LatencyViolated: p95 of dense is 48.5 ms of 20.0 ms, for 2 s; small is the most
    │       accurate that fits (predicted p95 9.8 ms of 20.0 ms).
    └── digits-edge-2 on edge-2: dense, objectives met
        ├── p95 about 12.5 ms of 20 ms, 4.0 requests/s, memory 128 MiB of 1024 MiB, seen 7 s ago
        └── Hold ObjectivesMet: dense serves at p95 12.5 ms of 20.0 ms; it is the most accurate one.
"""
    )


def test_before_the_operator_has_seen_it() -> None:
    assert shown(Site()).startswith("digits: not seen by the operator yet.")


def test_the_first_making_shows_its_job() -> None:
    site = Site()
    site.cycle()
    site.cycle(0)  # its pods are of the DaemonSet now
    text = shown(site)
    assert "not Ready, Making: The first revision is being made." in text
    assert "Running, 0 %, begun 2 s ago" in text
    assert "digits-edge-1 on edge-1: serves nothing" in text


def test_a_mistake_is_said_in_its_own_words_once(serving: Site) -> None:
    serving.edit(seed=2)
    serving.cycle()
    serving.end_job(FailureReport(kind="BadInput", field="spec.data", problem="it is empty.", remedy="Fill it."))
    serving.cycle()
    text = shown(serving)
    assert "├── Stalled, BadInput: spec.data: it is empty. Fill it." in text
    assert "last failure" not in text


def test_a_silent_agent_is_overdue(serving: Site) -> None:
    text = shown(serving, after=100)
    assert "overdue: the agent is silent" in text
    assert "objectives met" not in text, "what it said of its objectives holds no more"


def test_paused_pinned_and_alone(serving: Site) -> None:
    serving.pods[0]["metadata"]["annotations"]["edgefolio.dev/paused"] = "true"
    serving.pods[1]["metadata"]["annotations"]["edgefolio.dev/pin-variant"] = "small"
    serving.cycle()
    text = shown(serving)
    assert "digits-edge-1 on edge-1: dense, objectives met, paused" in text
    assert "digits-edge-2 on edge-2: dense -> small, objectives met, pinned" in text
    status = serving.endpoints["digits-edge-1"]["status"]
    status["decision"] |= {"decidedBy": "Agent", "reason": "DeadBand", "message": "words of its own"}
    status["conditions"] = [
        {"type": "Autonomous", "status": "True", "reason": "CutOff", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]
    text = shown(serving)
    assert "objectives met, autonomous, paused" in text
    assert "Hold DeadBand, says the agent alone: words of its own" in text


def test_failures_and_quarantine(serving: Site) -> None:
    serving.report("edge-1")
    status = serving.endpoints["digits-edge-1"]["status"]
    status["lastFailure"] = {
        "reason": "LoadFailed",
        "message": "the canary differs",
        "variant": "small",
        "revision": 1,
        "time": "2027-01-15T08:00:00Z",
    }
    status["decision"]["quarantined"] = [
        {"variant": "small", "until": "2027-01-15T08:05:00Z", "failures": 2, "cause": "the canary differs"}
    ]
    text = shown(serving)
    assert "small is quarantined for 5 min more: the canary differs" in text
    assert "LoadFailed of small in revision 1: the canary differs" in text


def test_foreign_text_cannot_move_the_cursor(serving: Site) -> None:
    """An agent that was taken over writes its status; whoever looks has more rights than it."""
    serving.report("edge-1")
    status = serving.endpoints["digits-edge-1"]["status"]
    status["lastFailure"] = {
        "reason": "LoadFailed",
        "message": "\x1b[2J\x1b]0;x\x07ok\nnext",
        "time": status["observation"]["time"],
    }
    text = shown(serving)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert r"LoadFailed: \x1b[2J\x1b]0;xok next" in text


def test_endpoints_of_a_portfolio_that_is_gone(serving: Site) -> None:
    (view,) = portfolio_views([], serving.endpoints.values())
    assert not view.exists
    assert [entry.name for entry in view.endpoints] == ["digits-edge-1", "digits-edge-2"]
    assert "not read" not in json.dumps(status_document((view,), now=serving.now))


@pytest.mark.parametrize("width", [30, 60, 100, 200])
def test_it_fits_any_width(serving: Site, width: int) -> None:
    lines = shown(serving, width=width, with_namespace=True).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("models/digits")


def test_a_newer_operator_is_understood(serving: Site) -> None:
    """Fields of a later version are left out, at any depth; the rest is shown."""
    spec = serving.endpoints["digits-edge-1"]["spec"]
    spec["later"] = {"a": 1}
    spec["objectives"]["later"] = 3
    (view,) = views(serving)
    assert view.endpoints[0].spec is not None
    assert view.endpoints[0].target == "dense"


def test_what_cannot_be_read_hides_nothing_else(serving: Site) -> None:
    serving.endpoints["digits-edge-1"]["status"]["decision"] = {"action": 7}
    serving.portfolio["status"]["conditions"] = "nonsense"
    text = shown(serving)
    assert "digits-edge-2 on edge-2: dense" in text
    assert "digits-edge-1 on edge-1: serves nothing -> dense" in text


def test_the_document_holds_numbers(serving: Site) -> None:
    (portfolio,) = status_document(views(serving), now=serving.now + 2)["portfolios"]
    assert portfolio["conditions"]["Ready"]["status"] == "True"
    dense = portfolio["revisions"][0]["variants"][1]
    assert (dense["name"], dense["accuracyPercent"], dense["servingEndpoints"]) == ("dense", 82.0, 2)
    endpoint: dict[str, Any] = portfolio["endpoints"][0]
    assert endpoint["observation"]["ageSeconds"] == 3
    assert endpoint["observation"]["p95Milliseconds"] == pytest.approx(12.5, abs=0.1)
    assert endpoint["decision"]["reason"] == "ObjectivesMet"
    assert json.loads(json.dumps(portfolio)) == portfolio


def test_a_site_that_follows_says_when_it_looked() -> None:
    site = Site()
    site.portfolio["status"] = {
        "observedGeneration": 1,
        "conditions": [
            {"type": kind, "status": status, "reason": reason, "message": text, "lastTransitionTime": time_text(NOW)}
            for kind, status, reason, text in (
                ("Ready", "False", "WaitingForRevision", "No revision is published in the repository yet."),
                ("NodeMetricsAvailable", "False", "MetricsStale", "There is no sample."),
                ("Conflicted", "False", "NoConflict", ""),
                ("Compatible", "True", "Managed", ""),
            )
        ],
        "check": {
            "specificationHash": "x",
            "outcome": "Unreachable",
            "reason": "RepositoryUnreachable",
            "message": "no such bucket.",
            "time": time_text(NOW - 58),
        },
    }
    text = shown(site)
    assert "repository: Unreachable, looked into 60 s ago, RepositoryUnreachable: no such bucket." in text
    assert "NodeMetricsAvailable False, MetricsStale: There is no sample." in text
    assert "Conflicted" not in text
    assert "Compatible" not in text
