"""Conditions, and what kstatus (Flux, kubectl wait, Argo CD's health check) makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from kstatus import compute

from edgefolio.specification.conditions import Condition
from edgefolio.specification.portfolio_status import EndpointCounts, RolloutStatus
from edgefolio_operator.status.conditions import Facts, conditions_of, needed_endpoints

NOW = 1_800_000_000.0


def counts(total: int, available: int, meeting: int) -> EndpointCounts:
    summary = f"{meeting}/{total}"
    return EndpointCounts(summary=summary, total=total, available=available, meeting_objectives=meeting)


def facts(**changes: Any) -> Facts:
    return Facts(**{"generation": 2, "revision": 1, "counts": counts(4, 4, 4), **changes})


def kstatus(conditions: tuple[Condition, ...], *, generation: int = 2, observed_generation: int = 2) -> str:
    """What kstatus computes for a portfolio with these conditions."""
    told = [{"type": condition.type, "status": condition.status} for condition in conditions]
    return compute(
        {
            "metadata": {"generation": generation},
            "status": {"observedGeneration": observed_generation, "conditions": told},
        }
    )


def rollout(phase: str) -> RolloutStatus:
    return RolloutStatus(revision=2, from_revision=1, phase=phase, message="Revision 2 could not be served by a.")


BAD = ("BadInput", "spec.data.trainingURI: it cannot be read. Correct it.")


@pytest.mark.parametrize(
    ("given", "ready", "reason", "computed"),
    [
        pytest.param(facts(), "True", "Serving", "Current", id="serving"),
        pytest.param(facts(counts=counts(4, 4, 0)), "True", "Serving", "Current", id="objectives missed"),
        pytest.param(facts(counts=counts(4, 3, 3)), "False", "EndpointsUnavailable", "InProgress", id="1 of 4 down"),
        pytest.param(facts(counts=counts(10, 9, 9)), "True", "Serving", "Current", id="1 of 10 down"),
        pytest.param(facts(making=True), "True", "Serving", "Current", id="remake while the old one serves"),
        pytest.param(
            facts(revision=0, counts=None, making=True), "False", "Making", "InProgress", id="first pruning run"
        ),
        pytest.param(facts(revision=0, counts=None), "False", "NoRevision", "InProgress", id="first sight"),
        pytest.param(
            facts(revision=0, counts=None, waits_for_others=True),
            "False",
            "WaitingForRevision",
            "InProgress",
            id="follower of an empty repository",
        ),
        pytest.param(facts(revision=0, counts=None, terminal=BAD), "False", "BadInput", "Failed", id="bad input"),
        pytest.param(facts(terminal=BAD), "True", "Serving", "Failed", id="bad remake"),
        pytest.param(facts(counts=None), "Unknown", "EndpointsUnknown", "InProgress", id="not counted"),
        pytest.param(facts(counts=counts(0, 0, 0)), "True", "NoEndpoints", "Current", id="a hub without nodes"),
        pytest.param(
            facts(counts=counts(0, 0, 0), endpoints_settled=False),
            "False",
            "EndpointsStarting",
            "InProgress",
            id="pods starting",
        ),
        pytest.param(facts(rollout=rollout("Progressing")), "True", "Serving", "InProgress", id="rollout"),
        pytest.param(facts(rollout=rollout("RolledBack")), "True", "Serving", "Current", id="rolled back"),
    ],
)
def test_ready_and_kstatus(given: Facts, ready: str, reason: str, computed: str) -> None:
    conditions = conditions_of(given, before=(), now=NOW)
    (found,) = (condition for condition in conditions if condition.type == "Ready")
    assert (found.status, found.reason) == (ready, reason)
    assert kstatus(conditions) == computed
    assert all(condition.observed_generation == 2 for condition in conditions)


def test_all_conditions_are_there_from_the_first_sight() -> None:
    types = [condition.type for condition in conditions_of(Facts(generation=1), before=(), now=NOW)]
    assert types == [
        "Ready",
        "Reconciling",
        "Stalled",
        "Making",
        "ObjectivesMet",
        "ObjectivesAccepted",
        "Degraded",
    ]


def test_the_time_of_a_change_is_kept_while_nothing_changes() -> None:
    first = conditions_of(facts(), before=(), now=NOW)
    assert conditions_of(facts(), before=first, now=NOW + 60) == first
    later = conditions_of(facts(counts=counts(4, 0, 0)), before=first, now=NOW + 60)
    changed = {
        one.type for one, two in zip(first, later, strict=True) if one.last_transition_time != two.last_transition_time
    }
    assert changed == {"Ready", "ObjectivesMet", "Degraded"}


@pytest.mark.parametrize(
    ("met", "unknown", "status"),
    [(4, 0, "True"), (3, 0, "False"), (3, 1, "Unknown"), (2, 1, "False"), (0, 4, "Unknown")],
)
def test_objectives_met(met: int, unknown: int, status: str) -> None:
    given = facts(counts=counts(4, 4, met), objectives_unknown=unknown)
    found = {condition.type: condition.status for condition in conditions_of(given, before=(), now=NOW)}
    assert found["ObjectivesMet"] == status
    assert found["Ready"] == "True"


def test_ignored_objectives_are_named() -> None:
    given = facts(issues=("slo.edgefolio.dev/max-memory: 'much' is wrong.",) * 100)
    (found,) = (entry for entry in conditions_of(given, before=(), now=NOW) if entry.type == "ObjectivesAccepted")
    assert (found.status, found.reason) == ("False", "ObjectiveIgnored")
    assert len(found.message) == 1024


@pytest.mark.parametrize(("total", "percent", "needed"), [(10, 90, 9), (4, 90, 4), (1, 90, 1), (0, 90, 0), (3, 1, 1)])
def test_needed_endpoints(total: int, percent: int, needed: int) -> None:
    assert needed_endpoints(total, percent) == needed
