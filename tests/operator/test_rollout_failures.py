"""What may pass delays a rollout, what one endpoint says leaves that one behind, and what went back is tried again."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reconciled_site import Site, published
from test_rollout import NOW, RULES, Fleet, members

from edgefolio.specification.conditions import time_text
from edgefolio.specification.portfolio_status import RolloutStatus
from edgefolio_operator.revisions.wave import CONFIRMED_SECONDS
from edgefolio_operator.status.conditions import left_behind


def finished(fleet: Fleet, cycles: int = 12) -> list[int | None]:
    return [fleet.step(100) for _ in range(cycles)][-1]


def behind(fleet: Fleet) -> list[str]:
    assert fleet.status is not None
    return left_behind(fleet.status)


@pytest.mark.parametrize("reason", ["Unreachable", "RestartNeeded", "AWordOfANewerAgent"])
def test_what_may_pass_delays_and_does_not_fail(reason: str) -> None:
    fleet = Fleet(members(4), rules=RULES.model_copy(update={"max_concurrent_percent": 50}))
    fleet.broken = {0, 1}
    fleet.step()
    fleet.members = [replace(member, failure_reason=reason) for member in fleet.members]
    for _ in range(5):
        assert fleet.step(100) == [2, 2, 1, 1]
    assert fleet.phase == "Progressing"
    fleet.broken = set()
    fleet.step(1)
    assert finished(fleet) == [2] * 4
    assert fleet.phase == "Completed"


def test_a_store_that_answers_nothing_for_seconds_fails_nobody() -> None:
    """Bytes are refused by a whole wave, and taken at the next try."""
    fleet = Fleet(members(8))
    fleet.broken = {0, 1}
    fleet.step()
    fleet.members = [replace(member, failure_reason="RevisionRefused") for member in fleet.members]
    assert fleet.step(3) == [2, 2, 1, 1, 1, 1, 1, 1]
    fleet.step(60)
    fleet.broken = set()
    fleet.step(5)
    assert finished(fleet) == [2] * 8
    assert (fleet.phase, behind(fleet)) == ("Completed", [])


def test_bytes_that_stay_refused_fail_the_revision() -> None:
    fleet = Fleet(members(8))
    fleet.broken = {0, 1}
    fleet.step()
    fleet.members = [replace(member, failure_reason="RevisionRefused") for member in fleet.members]
    fleet.step(3)
    fleet.step(CONFIRMED_SECONDS)
    assert (fleet.phase, fleet.status.reason if fleet.status else "") == ("RolledBack", "RevisionRefused")


@pytest.mark.parametrize("count", [8, 100])
def test_one_liar_is_left_behind_and_the_others_go_on(count: int) -> None:
    fleet = Fleet(members(count))
    fleet.broken = {1}
    fleet.step()
    assert finished(fleet) == [1 if number == 1 else 2 for number in range(count)]
    assert (fleet.phase, behind(fleet)) == ("Completed", ["e1 (LoadFailed)"])


def test_one_that_was_left_behind_and_is_gone_is_forgotten() -> None:
    fleet = Fleet(members(8))
    fleet.broken = {1}
    fleet.step()
    finished(fleet)
    assert behind(fleet) == ["e1 (LoadFailed)"]
    fleet.members[1] = replace(fleet.members[1], name="another", assigned=None, active=None)
    fleet.broken = set()
    fleet.step(10)
    assert behind(fleet) == []
    assert fleet.status is not None
    assert fleet.status.failures is None


def test_one_that_misses_its_objectives_is_left_behind_as_well() -> None:
    fleet = Fleet(members(8))
    fleet.change(1, objectives_met=False)
    assert finished(fleet, 6) == [2, 1, 2, 2, 2, 2, 2, 2]
    assert behind(fleet) == ["e1 (ObjectivesNotMet)"]
    # Tried again, it is watched again.
    told = [fleet.step(100)[1] for _ in range(40)]
    assert told.count(2) >= 2
    assert told.count(1) > told.count(2)


def test_the_stated_share_of_a_wave_fails_the_revision() -> None:
    for broken, phase in (({0, 1, 10, 11}, "Progressing"), ({0, 1, 10, 11, 12}, "RolledBack")):
        fleet = Fleet(members(100))  # waves of 25 by name, of which a fifth is 5
        fleet.broken = broken
        fleet.step()
        fleet.step(10)
        assert fleet.phase == phase
    strict = Fleet(members(100), rules=RULES.model_copy(update={"failure_percent": 1}))
    strict.broken = {0, 1}
    strict.step()
    strict.step(10)
    assert strict.phase == "RolledBack"


def test_small_waves_that_lose_one_each_fail_the_revision_together() -> None:
    fleet = Fleet(members(8))  # waves of two
    fleet.broken = {1, 3}
    fleet.step()
    fleet.step(1)
    fleet.step(CONFIRMED_SECONDS)
    assert behind(fleet) == ["e1 (LoadFailed)"]
    fleet.step(10)
    assert fleet.phase == "RolledBack"
    assert fleet.status is not None
    assert fleet.status.message == "Revision 2 could not be served by e3, e1."
    # Of a hundred, two are few.
    large = Fleet(members(100))
    large.broken = {1, 99}
    finished(large)
    assert (large.phase, behind(large)) == ("Completed", ["e1 (LoadFailed)", "e99 (LoadFailed)"])


def test_one_that_is_a_wave_of_its_own_is_asked_again() -> None:
    fleet = Fleet(members(3))
    fleet.broken = {0}
    fleet.step()
    assert fleet.step(1) == [2, 1, 1]
    fleet.change(0, failed_at=fleet.now + 5)
    assert fleet.step(6) == [1, 1, 1]
    assert fleet.phase == "RolledBack"


def test_a_wave_of_which_only_the_broken_one_can_be_reached_proves_nothing_good() -> None:
    fleet = Fleet(members(8))
    fleet.broken = {0}
    fleet.step()
    fleet.change(1, reachable=False, active=1)
    fleet.step(1)
    assert fleet.step(CONFIRMED_SECONDS) == [1] * 8
    assert fleet.phase == "RolledBack"


def test_what_was_left_behind_is_tried_again_after_growing_pauses() -> None:
    fleet = Fleet(members(8))
    fleet.broken = {1}
    finished(fleet)
    tries: list[float] = []
    left_at = fleet.now
    for _ in range(400):
        if fleet.step(60)[1] == 2:
            tries.append(fleet.now - left_at)
            left_at = fleet.now
    # 20, 40, 80 minutes and so on after the first ten; each try lasts for two of these cycles.
    tries = [seconds for seconds in tries if seconds > 60]
    assert len(tries) >= 4
    assert all(later >= 1.8 * earlier for earlier, later in itertools.pairwise(tries))
    fleet.broken = set()
    for _ in range(60 * 24):
        fleet.step(60)
    assert fleet.step(1) == [2] * 8
    assert behind(fleet) == []


def test_a_revision_that_went_back_is_tried_again_and_not_for_ever() -> None:
    fleet = Fleet(members(8))
    fleet.broken = {0, 1}
    begun = 0
    before = [1] * 8
    for _ in range(60 * 24 * 4):
        assigned = fleet.step(60)
        begun += before == [1] * 8 and assigned != before
        before = assigned
    assert begun == 6
    assert (fleet.phase, fleet.status.next_attempt_time if fleet.status else "") == ("RolledBack", None)
    fleet.broken = set()
    fleet.request = "2027-02-01"
    fleet.step()
    assert finished(fleet) == [2] * 8


def test_a_cause_that_is_gone_lets_the_next_try_through() -> None:
    fleet = Fleet(members(8))
    fleet.broken = {0, 1}
    fleet.step()
    fleet.step(1)
    assert fleet.phase == "RolledBack"
    fleet.broken = set()
    fleet.step(3599)
    fleet.step(10)
    assert finished(fleet) == [2] * 8


def test_a_rollback_that_an_older_version_stored_is_tried_again_later() -> None:
    fleet = Fleet(members(8))
    stored = {
        "revision": 2,
        "fromRevision": 1,
        "phase": "RolledBack",
        "updated": 0,
        "waveStartTime": time_text(NOW - 1000),
        "reason": "LoadFailed",
        "message": "Revision 2 could not be served by e1.",
    }
    fleet.status = RolloutStatus.model_validate(stored)
    assert fleet.step() == [1] * 8
    assert fleet.step(3500) == [1] * 8
    assert fleet.step(200) == [2, 2, 1, 1, 1, 1, 1, 1]


def test_a_revision_waits_for_approval_where_that_is_asked_for() -> None:
    fleet = Fleet(members(8), rules=RULES.model_copy(update={"approval": "Manual"}))
    for approved in ("", "1", "yes"):
        fleet.approved = approved
        assert fleet.step(1000) == [1] * 8
        assert fleet.status is not None
        assert (fleet.phase, fleet.status.reason) == ("Paused", "WaitingForApproval")
    assert "edgefolio.dev/approve-revision=2" in fleet.status.message
    fleet.approved = "2"
    assert fleet.step() == [2, 2, 1, 1, 1, 1, 1, 1]
    assert finished(fleet) == [2] * 8
    # The next one waits again.
    fleet.target = 3
    assert fleet.step() == [2] * 8


TROUBLE = st.lists(
    st.tuples(
        st.sets(st.integers(0, 11)),
        st.sampled_from(["LoadFailed", "RevisionRefused", "InsufficientStorage", "RestartNeeded", "New"]),
        st.sampled_from([1, 30, 120, 700, 4000]),
    ),
    max_size=15,
)


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 12), trouble=TROUBLE, percent=st.integers(1, 100), share=st.integers(1, 100))
def test_once_the_trouble_is_over_everyone_gets_there_if_asked(
    count: int, trouble: list[tuple[set[int], str, int]], percent: int, share: int
) -> None:
    rules = RULES.model_copy(update={"max_concurrent_percent": percent, "failure_percent": share})
    fleet = Fleet(members(count), rules=rules)
    for broken, reason, seconds in trouble:
        fleet.broken = broken
        fleet.members = [replace(member, failure_reason=reason) for member in fleet.members]
        assert set(fleet.step(seconds)) <= {1, 2}
        assert fleet.status is not None
        # What is stored is read again as it was.
        written = fleet.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        assert RolloutStatus.model_validate(written) == fleet.status
        if fleet.phase == "RolledBack":
            assert {member.assigned for member in fleet.members} == {1}
        left = {entry.endpoint for entry in fleet.status.failures or () if entry.left_behind}
        assert {member.assigned for member in fleet.members if member.name in left} <= {1}
    fleet.broken = set()
    # What failed until now is heard of before the request, or it would take the revision back after it.
    fleet.step(1)
    fleet.request = "again"
    for _ in range(4 * count + 4):
        fleet.step(150)
    assert (fleet.step(1), fleet.phase, behind(fleet)) == ([2] * count, "Completed", [])


def test_the_portfolio_says_who_was_left_behind() -> None:
    site = Site(nodes=8, rollout={"maxConcurrentPercent": 50, "analysisSeconds": 10}).served()
    site.edit(seed=1)
    site.cycle()
    site.end_job(published(2))
    told = []
    for _ in range(60):
        told += [event.reason for event in site.cycle(5).events]
        for node in site.nodes or ():
            if node != "edge-2":
                site.report(node)
                continue
            site.report(node, obey=site.endpoints["digits-edge-2"]["spec"]["revision"]["number"] == 1)
            if site.endpoints["digits-edge-2"]["spec"]["revision"]["number"] == 2:
                failure = {"reason": "LoadFailed", "message": "x", "revision": 2, "time": time_text(site.now)}
                site.endpoints["digits-edge-2"]["status"]["lastFailure"] = failure
    numbers = {name: entry["spec"]["revision"]["number"] for name, entry in site.endpoints.items()}
    assert numbers == {f"digits-edge-{number}": 1 if number == 2 else 2 for number in range(1, 9)}
    assert site.portfolio["status"]["rollout"]["phase"] == "Completed"
    assert site.condition("Degraded") == ("True", "EndpointsLeftBehind")
    assert "digits-edge-2 (LoadFailed)" in site.message("Degraded")
    assert told.count("EndpointsLeftBehind") == 1
    # Asked for, it is tried again and, mended, gets there.
    site.portfolio["metadata"]["annotations"]["edgefolio.dev/rollout-requested-at"] = "now"
    for _ in range(5):
        site.cycle(5)
        for node in site.nodes or ():
            site.report(node)
    assert site.endpoints["digits-edge-2"]["spec"]["revision"]["number"] == 2
    assert site.condition("Degraded") == ("False", "AsExpected")
