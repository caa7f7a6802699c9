"""A new revision in waves: small, watched, and taken back when it fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio.specification.cluster import Rollout
from edgefolio.specification.portfolio_status import RolloutStatus
from edgefolio_operator.revisions.rollout import plan_rollout, wave_size
from edgefolio_operator.revisions.wave import Member

NOW = 1_800_000_000.0
KNOWN = frozenset({1, 2, 3})
RULES = Rollout(max_concurrent_percent=25, analysis_seconds=100)


def members(count: int, revision: int | None = 1) -> list[Member]:
    return [
        Member(name=f"e{number}", assigned=revision, active=revision, objectives_met=True) for number in range(count)
    ]


class Fleet:
    """Endpoints that do what they are told at once, unless a test says otherwise."""

    def __init__(self, endpoints: list[Member], *, target: int = 2, rules: Rollout = RULES) -> None:
        self.members = endpoints
        self.target = target
        self.rules = rules
        self.status: RolloutStatus | None = None
        self.now = NOW
        #: Numbers of the endpoints that cannot load the target.
        self.broken: set[int] = set()
        self.request = ""
        self.approved = ""

    def step(self, seconds: float = 0.0) -> list[int | None]:
        """One cycle of the operator ``seconds`` later; the revisions the endpoints are then sent to."""
        self.now += seconds
        plan = plan_rollout(
            target=self.target,
            members=self.members,
            last=self.status,
            settings=self.rules,
            known_revisions=KNOWN,
            now=self.now,
            request=self.request,
            approved=self.approved,
        )
        assert set(plan.assignments) == {member.name for member in self.members}
        self.status = plan.status
        self.members = [
            self._after(number, member, plan.assignments[member.name]) for number, member in enumerate(self.members)
        ]
        return [member.assigned for member in self.members]

    def _after(self, number: int, member: Member, revision: int) -> Member:
        """``member`` once it has carried out the order."""
        if number in self.broken and revision == self.target:
            first = member.assigned != revision
            at = self.now if first else member.failed_at
            return replace(member, assigned=revision, failed_revision=revision, failed_at=at)
        return replace(member, assigned=revision, active=revision if member.reachable else member.active)

    def change(self, number: int, **changes: object) -> None:
        self.members[number] = replace(self.members[number], **changes)

    @property
    def phase(self) -> str:
        assert self.status is not None
        return self.status.phase


def test_the_first_revision_goes_to_everyone_at_once() -> None:
    fleet = Fleet(members(5, None), target=1)
    assert fleet.step() == [1] * 5
    assert fleet.phase == "Completed"


def test_waves_of_a_quarter_each_watched() -> None:
    fleet = Fleet(members(8))
    assert fleet.step() == [2, 2, 1, 1, 1, 1, 1, 1]
    assert fleet.step(99) == [2, 2, 1, 1, 1, 1, 1, 1]
    assert fleet.step(1) == [2, 2, 2, 2, 1, 1, 1, 1]
    fleet.step(100)
    assert fleet.step(100) == [2] * 8
    assert fleet.phase == "Progressing"
    fleet.step(100)
    assert fleet.phase == "Completed"


def test_a_wave_waits_for_endpoints_that_have_not_arrived() -> None:
    fleet = Fleet(members(4))
    fleet.step()
    fleet.change(0, active=1)
    fleet.members = [replace(member, active=1) for member in fleet.members]
    assert fleet.step(500) == [2, 1, 1, 1]


def test_a_revision_that_two_of_a_wave_cannot_load_goes_back_at_once() -> None:
    fleet = Fleet(members(8))
    fleet.broken = {0, 1}
    fleet.step()
    assert fleet.step(1) == [1] * 8
    assert fleet.phase == "RolledBack"
    assert fleet.status is not None
    assert (fleet.status.reason, fleet.status.message) == ("LoadFailed", "Revision 2 could not be served by e0, e1.")
    assert fleet.step(3000) == [1] * 8
    fleet.target = 3
    fleet.broken = set()
    assert fleet.step() == [3, 3, 1, 1, 1, 1, 1, 1]


def test_a_failure_from_before_says_nothing() -> None:
    fleet = Fleet(members(4))
    fleet.change(0, failed_revision=2, failed_at=NOW - 1)
    fleet.step()
    assert fleet.step(100) == [2, 2, 1, 1]


def test_missed_objectives_count_at_the_end_of_the_analysis() -> None:
    fleet = Fleet(members(8))
    fleet.step()
    fleet.change(0, objectives_met=False)
    fleet.change(1, objectives_met=False)
    assert fleet.step(50) == [2, 2, 1, 1, 1, 1, 1, 1]
    fleet.change(0, objectives_met=True)
    assert fleet.step(49) == [2, 2, 1, 1, 1, 1, 1, 1]
    fleet.change(0, objectives_met=False)
    assert fleet.step(1) == [1] * 8
    assert fleet.phase == "RolledBack"


def test_pause_stops_where_it_is() -> None:
    fleet = Fleet(members(8), rules=RULES.model_copy(update={"on_failure": "Pause"}))
    fleet.broken = {0, 1}
    fleet.step()
    assert fleet.step(1) == [2, 2, 1, 1, 1, 1, 1, 1]
    fleet.broken = set()
    assert fleet.step(100_000) == [2, 2, 1, 1, 1, 1, 1, 1]
    assert fleet.phase == "Paused"
    fleet.request = "now"
    fleet.step()
    assert fleet.phase == "Progressing"


def test_unreachable_endpoints_block_nothing_and_prove_nothing() -> None:
    endpoints = members(4)
    endpoints[0] = replace(endpoints[0], reachable=False)
    fleet = Fleet(endpoints)
    assert fleet.step() == [1, 2, 1, 1]
    for _ in range(3):
        fleet.step(100)
    assert fleet.step(100) == [2, 2, 2, 2]
    fleet.step(100)
    assert fleet.phase == "Completed"


def test_a_later_endpoint_joins_those_that_are_done() -> None:
    fleet = Fleet(members(2))
    for _ in range(3):
        fleet.step(100)
    assert fleet.phase == "Completed"
    fleet.members.append(Member(name="new", assigned=None, active=None))
    assert fleet.step() == [2, 2, 2]


def test_no_way_back_means_no_waves() -> None:
    fleet = Fleet(members(4, revision=9))
    assert fleet.step() == [2] * 4


@pytest.mark.parametrize(("count", "percent", "size"), [(8, 25, 2), (3, 25, 1), (1, 1, 1), (10, 100, 10), (7, 50, 3)])
def test_wave_size(count: int, percent: int, size: int) -> None:
    assert wave_size(count, Rollout(max_concurrent_percent=percent)) == size


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 9), st.sampled_from(["met", "missed", "lost", "found", "late", "wait"]), st.integers(0, 150)
    ),
    max_size=40,
)


@settings(deadline=None)
@given(count=st.integers(1, 10), percent=st.integers(1, 100), events=EVENTS)
def test_never_more_than_a_wave_at_once_and_everyone_has_a_revision(
    count: int, percent: int, events: list[tuple[int, str, int]]
) -> None:
    rules = Rollout(max_concurrent_percent=percent, analysis_seconds=100)
    fleet = Fleet(members(count), rules=rules)
    before = [1] * count
    for number, event, seconds in events:
        index = number % count
        changes = {
            "met": {"objectives_met": True},
            "missed": {"objectives_met": False},
            "lost": {"reachable": False},
            "found": {"reachable": True},
            "late": {"active": 1},
            "wait": {},
        }[event]
        fleet.change(index, **changes)
        assigned = fleet.step(seconds)
        moved = sum(1 for old, new in zip(before, assigned, strict=True) if (old, new) == (1, 2))
        assert moved <= wave_size(count, rules)
        assert set(assigned) <= {1, 2}
        if fleet.phase == "RolledBack":
            assert set(assigned) == {1}
        before = assigned
