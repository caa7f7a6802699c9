"""What an agent reports of its endpoint, and how often it tries while nobody hears it; in virtual time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from triton_portfolios import draft, revealing_model

from edgefolio.decision.types import Action, Decision, Observation, Reason, ServerState, State
from edgefolio.errors import UserError
from edgefolio.processor import this_processor
from edgefolio.specification.conditions import time_seconds
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio_edge.agent.cycle_result import CycleResult, ServedVersions
from edgefolio_edge.cluster.orders import Orders
from edgefolio_edge.cluster.settings import Settings
from edgefolio_edge.cluster.status_writer import (
    ACKNOWLEDGE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    VALID_SECONDS,
    StatusWriter,
)
from edgefolio_edge.models.node_profiles import HeldProfile
from edgefolio_edge.models.sync_state import Refusal, Synced
from edgefolio_edge.reasons import INSUFFICIENT_STORAGE
from edgefolio_edge.triton.placement import Placement

MANIFEST = draft([revealing_model(1), revealing_model(2)])
VERIFIED = Synced(manifest=MANIFEST, available=("variant-1", "variant-2"), complete=True)
ACTIVE = Placement(manifest=MANIFEST, variant=MANIFEST.variants[1])
SERVING = CycleResult(
    synced=VERIFIED,
    served=ServedVersions(ready=(102,), active=ACTIVE, name="variant-2"),
    observation=Observation(active_variant="variant-2", resident_variants=(), server=ServerState.SERVING),
    decision=Decision(action=Action.HOLD, reason=Reason.OBJECTIVES_MET, target=None, message="", objectives_met=True),
    state=State(),
)
YEAR = 365 * 86_400.0
IDLE = replace(SERVING, served=None, observation=None, decision=None)


class Hub:
    """The API server: it hears, or it does not."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.reports: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.tries = 0
        self.hears = True
        folder.mkdir(exist_ok=True)
        self.orders = Orders(folder, clock=lambda: self.now)
        #: What somebody set the wall clock off by.
        self.step = 0.0
        self.writer = StatusWriter(
            self.orders, self.write, clock=lambda: self.now + self.step, elapsed=lambda: self.now
        )

    def order(self, revision: int | None = 1, *, generation: int = 1) -> None:
        document: dict[str, Any] = {
            "portfolioRef": {"name": "digits"},
            "podName": "digits-a",
            "nodeName": "edge-1",
            "modelName": "digits",
            "repositoryURI": "s3://bucket/portfolios",
        }
        if revision is not None:
            document["revision"] = {"number": revision, "manifestDigest": "a" * 64}
        self.orders.take(EndpointSpecification.model_validate(document), generation=generation)

    def write(self, status: dict[str, Any]) -> bool:
        self.tries += 1
        if self.hears:
            self.reports.append(status)
            self.times.append(self.now)
            self.orders.heard()
        return self.hears

    def cycles(self, cycle: CycleResult, *, seconds: int) -> list[dict[str, Any]]:
        """What is reported while every second has such a cycle."""
        before = len(self.reports)
        for _ in range(seconds):
            self.now += 1
            self.writer.after_cycle(cycle)
        return self.reports[before:]

    def condition(self, cycle: CycleResult, kind: str) -> tuple[str, str, str]:
        """The condition that is reported after ``cycle``."""
        self.now += 3600
        self.writer.after_cycle(cycle)
        (found,) = (entry for entry in self.reports[-1]["conditions"] if entry["type"] == kind)
        return found["status"], found["reason"], found["message"]


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    hub = Hub(tmp_path)
    hub.order()
    return hub


@pytest.mark.parametrize(
    ("synced", "expected"),
    [
        pytest.param(VERIFIED, ("True", "Verified", "Revision 1"), id="whole"),
        pytest.param(
            replace(VERIFIED, complete=False, available=("variant-1",)), ("False", "Fetching", "1 of 2"), id="part"
        ),
        pytest.param(Synced(), ("False", "Fetching", "Nothing of revision 1"), id="nothing"),
        pytest.param(Synced(unreachable="no route"), ("False", "Unreachable", "no route"), id="away"),
        pytest.param(replace(VERIFIED, unreachable="no route"), ("True", "Verified", ""), id="away and not needed"),
        pytest.param(
            replace(VERIFIED, refusal=Refusal(revision=1, problem="bad digest")),
            ("False", "Refused", "bad digest"),
            id="refused",
        ),
        pytest.param(
            Synced(refusal=Refusal(revision=1, problem="too large", reason=INSUFFICIENT_STORAGE)),
            ("False", "InsufficientStorage", "too large"),
            id="too large",
        ),
    ],
)
def test_whether_the_ordered_revision_is_on_disk(hub: Hub, synced: Synced, expected: tuple[str, str, str]) -> None:
    status, reason, message = hub.condition(replace(IDLE, synced=synced), "Synced")
    assert (status, reason) == expected[:2]
    assert expected[2] in message


def test_nothing_is_published_yet(hub: Hub) -> None:
    hub.order(None)
    assert hub.condition(replace(IDLE, synced=Synced()), "Synced")[:2] == ("False", "NothingPublished")


@pytest.mark.parametrize(
    ("cycle", "expected"),
    [
        pytest.param(SERVING, ("True", "Serving"), id="serving"),
        pytest.param(replace(IDLE, synced=Synced()), ("False", "NothingSynced"), id="nothing on disk"),
        pytest.param(replace(IDLE, trouble="no Triton answers"), ("False", "ServerUnreachable"), id="no server"),
        pytest.param(
            replace(IDLE, served=ServedVersions(ready=(), active=None, name=None)),
            ("False", "NothingServed"),
            id="empty",
        ),
        pytest.param(
            replace(SERVING, observation=replace(SERVING.observation, server=ServerState.DEAD)),  # type: ignore[type-var]
            ("False", "ServerDead"),
            id="dead",
        ),
    ],
)
def test_whether_a_verified_variant_answers(hub: Hub, cycle: CycleResult, expected: tuple[str, str]) -> None:
    assert hub.condition(cycle, "Ready")[:2] == expected


@pytest.mark.parametrize(
    ("met", "expected"), [(True, ("True", "Met")), (False, ("False", "ObjectivesMet")), (None, ("Unknown", "NotKnown"))]
)
def test_whether_objectives_are_met(hub: Hub, met: bool | None, expected: tuple[str, str]) -> None:
    assert SERVING.decision is not None
    cycle = replace(SERVING, decision=replace(SERVING.decision, objectives_met=met))
    assert hub.condition(cycle, "ObjectivesMet")[:2] == expected


def test_a_condition_keeps_the_time_of_its_last_change(hub: Hub) -> None:
    hub.condition(SERVING, "Ready")
    first = hub.reports[-1]["conditions"][0]["lastTransitionTime"]
    hub.condition(SERVING, "Ready")
    assert hub.reports[-1]["conditions"][0]["lastTransitionTime"] == first
    hub.condition(IDLE, "Ready")
    assert hub.reports[-1]["conditions"][0]["lastTransitionTime"] != first


def test_an_order_that_changes_nothing_is_acknowledged_once_and_not_by_all_nodes_at_once(tmp_path: Path) -> None:
    delays = []
    for number in range(40):
        hub = Hub(tmp_path / str(number))
        hub.order()
        assert len(hub.cycles(SERVING, seconds=12)) == 1
        hub.order(generation=2)
        (report,) = hub.cycles(SERVING, seconds=int(ACKNOWLEDGE_SECONDS) + 1)
        assert report["observedGeneration"] == 2
        delays.append(hub.times[-1] - hub.times[0] - 11)
    assert min(delays) >= 2
    assert len(set(delays)) > 4


def test_what_an_order_changes_is_reported_with_it_at_once(hub: Hub) -> None:
    hub.cycles(SERVING, seconds=12)
    hub.order(generation=2)
    assert SERVING.decision is not None
    broken = replace(SERVING, decision=replace(SERVING.decision, objectives_met=False))
    (report,) = hub.cycles(broken, seconds=1)
    assert report["observedGeneration"] == 2
    assert hub.cycles(broken, seconds=int(ACKNOWLEDGE_SECONDS)) == []


def test_reports_that_do_not_arrive_are_tried_ever_more_seldom(hub: Hub) -> None:
    hub.hears = False
    for _ in range(600):
        hub.now += 0.2
        hub.writer.after_cycle(SERVING)
    # 1, 2, 4, 8 s, and then each 15 s of two minutes.
    assert 8 <= hub.tries <= 14
    assert hub.tries >= 120 / LONGEST_PAUSE_SECONDS


def test_the_first_word_from_the_hub_is_answered_at_once(hub: Hub) -> None:
    hub.hears = False
    for _ in range(100):
        hub.now += 0.2
        hub.writer.after_cycle(SERVING)
    hub.hears = True
    hub.now += 0.2
    hub.orders.heard()
    hub.writer.after_cycle(SERVING)
    assert len(hub.reports) == 1


def test_the_processor_and_the_profile_that_is_held_are_reported(hub: Hub) -> None:
    hub.order()
    (first,) = hub.cycles(SERVING, seconds=1)
    assert first["processor"]["model"] == this_processor().model[:120]
    assert set(first["processor"]["instructionSets"]) == set(this_processor().instruction_sets)
    assert "profileDigest" not in first
    # Fetched: the operator waits for this before it predicts with it.
    held = HeldProfile(evidence="as ordered", digest="b" * 64)
    reports = hub.cycles(replace(SERVING, synced=replace(VERIFIED, profile=held)), seconds=5)
    assert [report.get("profileDigest") for report in reports] == ["b" * 64]


@pytest.mark.parametrize("step", [-50 * YEAR, -600.0, 10.0, 20 * YEAR])
def test_a_step_of_the_wall_clock_changes_neither_pace_nor_facts(hub: Hub, step: float) -> None:
    hub.now = 51 * YEAR
    moved = replace(SERVING, state=State(last_switch_at=hub.now, recent_switches=(hub.now,)))

    def connected(cycle: CycleResult) -> int:
        before = len(hub.reports)
        for _ in range(200):
            hub.orders.heard()
            hub.cycles(cycle, seconds=1)
        return len(hub.reports) - before

    before = connected(moved)
    hub.step = step
    after = connected(replace(moved, clock_offset=step))
    most = 200 / (0.4 * VALID_SECONDS) + 3
    assert 200 / (0.6 * VALID_SECONDS) - 1 <= before <= most
    assert 200 / (0.6 * VALID_SECONDS) - 1 <= after <= most
    status = EndpointStatus.model_validate(hub.reports[-1])
    assert status.observation is not None
    assert status.decision is not None
    assert status.decision.last_switch_time is not None
    reported = time_seconds(status.observation.time)
    assert time_seconds(status.observation.valid_until) - reported == VALID_SECONDS
    # Times are those of the node's clock as it is now, so that ages are right.
    assert reported - time_seconds(status.decision.last_switch_time) == pytest.approx(400, abs=70)


def test_a_claim_is_read_where_it_is_mounted() -> None:
    settings = Settings.of({"POD_NAME": "a", "POD_NAMESPACE": "b"})
    assert settings.place_of("pvc://store/portfolios") == "/claims/store/portfolios"
    assert settings.place_of("pvc://store") == "/claims/store"
    assert settings.place_of("s3://bucket/portfolios") == "s3://bucket/portfolios"


@pytest.mark.parametrize(
    ("environment", "field"),
    [
        ({}, "POD_NAME"),
        ({"POD_NAME": "a"}, "POD_NAMESPACE"),
        ({"POD_NAME": "a", "POD_NAMESPACE": "b", "EDGEFOLIO_THREADS": "0"}, "EDGEFOLIO_THREADS"),
        ({"POD_NAME": "a", "POD_NAMESPACE": "b", "EDGEFOLIO_STORAGE_LIMIT": "2Gi"}, "EDGEFOLIO_STORAGE_LIMIT"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(environment: dict[str, str], field: str) -> None:
    with pytest.raises(UserError, match=field):
        Settings.of(environment)
