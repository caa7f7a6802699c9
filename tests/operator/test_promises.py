"""What memory is promised to a switch, from its order until it is done and seen; and who is charged with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_reports import holding_decision
from shared_node import MEBIBYTE, NOW, REVISION, endpoint, serving, spec

from edgefolio.contract.endpoint_report import report_of_decision
from edgefolio.decision.types import State
from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.endpoints.memory_reservations import (
    DONE_SECONDS,
    LOAD_SECONDS,
    PATIENCE_SECONDS,
    Promise,
    Reservations,
    promises_of,
)
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.reconcilers.endpoint import assign_all, standing_promises

KEY = ("models", "pod-a")
PORTFOLIO = ModelPortfolio.model_validate(
    {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelPortfolio",
        "metadata": {"name": "digits", "namespace": "models"},
        "spec": {"repository": {"uri": "s3://bucket/portfolios"}, "serving": {"modelName": "digits"}},
    }
)


def promised(
    target: str, active: str | None, *, before: tuple[Promise, ...] = (), now: float = NOW, **fields: Any
) -> tuple[Promise, ...]:
    status = serving(active, **fields)
    return promises_of(KEY, spec=spec(target), status=status, revisions={1: REVISION}, before=before, now=now)


def taken(promises: tuple[Promise, ...], *, seen_at: float, now: float, but_for: str = "other") -> int:
    """In MiB, on the promises' node."""
    found = Reservations.of(promises).reserved_bytes("edge-1", but_for=("models", but_for), seen_at=seen_at, now=now)
    return found // MEBIBYTE


def test_a_switch_is_promised_its_peak_until_it_is_done_and_seen() -> None:
    (told,) = promised("dense", "small")
    assert (told.peak_bytes, told.since, told.done_at) == (120 * MEBIBYTE, NOW, None)
    assert promised("dense", "small", before=(told,), now=NOW + 5) == (told,)
    done = promised("dense", "dense", before=(told,), now=NOW + 8)
    assert [(entry.since, entry.done_at) for entry in done] == [(NOW, NOW + 8)]
    # A figure from before it was done does not show it, a newer one does.
    assert taken(done, seen_at=NOW + 7, now=NOW + 20) == 120
    assert taken(done, seen_at=NOW + 9, now=NOW + 20) == 0
    assert promised("dense", "dense", before=done, now=NOW + 8 + DONE_SECONDS + 1) == ()


def test_what_was_done_is_not_forgotten_when_the_next_switch_is_told() -> None:
    told = promised("dense", "small")
    again = promised("mid", "dense", before=told, now=NOW + 8)
    assert [(entry.variant, entry.done_at) for entry in again] == [("dense", NOW + 8), ("mid", None)]
    assert taken(again, seen_at=NOW + 3, now=NOW + 9) == 120 + 80
    assert taken(again, seen_at=NOW + 9, now=NOW + 9) == 80
    back = promised("mid", "mid", before=again, now=NOW + 12)
    # One variant came after the other: the larger of them counts.
    assert taken(back, seen_at=NOW + 3, now=NOW + 13) == 120
    assert taken(back, seen_at=NOW + 10, now=NOW + 13) == 80


def test_an_endpoint_is_not_charged_with_its_own_switch_nor_another_node_s() -> None:
    told = promised("dense", "small")
    assert taken(told, seen_at=NOW, now=NOW, but_for="pod-a") == 0
    held = Reservations.of(told)
    assert held.reserved_bytes("edge-2", but_for=("models", "other"), seen_at=NOW, now=NOW) == 0
    # The same name in another namespace is another endpoint.
    assert held.reserved_bytes("edge-1", but_for=("elsewhere", "pod-a"), seen_at=NOW, now=NOW) == 120 * MEBIBYTE


def test_an_order_that_nobody_carries_out_does_not_block_for_ever() -> None:
    told = promised("dense", "small")
    late = NOW + PATIENCE_SECONDS + 1
    assert taken(promised("dense", "small", before=told, now=late), seen_at=late, now=late) == 0


def test_patience_with_an_order_begins_when_it_is_written() -> None:
    """Writes are refused for longer than an order is waited for; the order that arrives then is a new one."""
    members = [endpoint("pod-a", None, serving(None))]
    promises: tuple[Promise, ...] = ()
    for now in (NOW, NOW + PATIENCE_SECONDS / 2, NOW + PATIENCE_SECONDS + 1):
        ((assignment,), promises) = assign_all(
            PORTFOLIO,
            members,
            revisions=[REVISION],
            assigned_revisions={"pod-a": 1},
            states={},
            resources=ResourceView(reservations=Reservations.of(promises)),
            epoch=1,
            now=now,
        )
        assert assignment.spec.target_variant is not None
        assert taken(promises, seen_at=now, now=now) > 0
    assert [promise.since for promise in promises] == [NOW + PATIENCE_SECONDS + 1]


def test_a_load_under_way_counts_when_the_order_changes() -> None:
    told = promised("dense", "mid")
    (changed,) = promised("small", "mid", before=told, now=NOW + 2)
    assert (changed.variant, changed.peak_bytes) == ("small", 120 * MEBIBYTE)
    (later,) = promised("small", "mid", before=(changed,), now=NOW + 4)
    assert (later.since, later.peak_bytes) == (NOW + 2, 120 * MEBIBYTE)
    (late,) = promised("small", "mid", before=(changed,), now=NOW + 3 + LOAD_SECONDS)
    assert late.peak_bytes == 40 * MEBIBYTE
    assert promised("mid", "mid", before=told, now=NOW + 2) == told
    assert promised("mid", "mid", before=told, now=NOW + LOAD_SECONDS + 1) == ()


@pytest.mark.parametrize("target", [None, "gone"])
def test_no_target_no_promise(target: str | None) -> None:
    for told, revisions in ((spec(target), {1: REVISION}), (spec(), {})):
        assert promises_of(KEY, spec=told, status=serving("small"), revisions=revisions, before=(), now=NOW) == ()


def test_after_a_restart_promises_are_found_again() -> None:
    at = time_text(NOW - 30)
    decision = report_of_decision(holding_decision(), State(last_switch_at=time_seconds(at)), decided_by_agent=False)
    entries = [
        endpoint("pod-a", spec("dense", name="pod-a"), serving("small")),
        endpoint("pod-b", spec("dense", name="pod-b"), serving("dense", decision=decision)),
        endpoint("pod-c", spec("dense", name="pod-c"), serving("dense")),
    ]
    found = standing_promises("models", entries, revisions=[REVISION], now=NOW)
    assert [entry.endpoint[1] for entry in found] == ["pod-a", "pod-b"]
    assert taken(found, seen_at=NOW, now=NOW) == 120
    assert taken(found, seen_at=NOW - 40, now=NOW) == 240


@st.composite
def promises_to(draw: st.DrawFn, endpoint: str) -> tuple[Promise, ...]:
    nodes = st.sampled_from(["edge-1", "edge-2", "edge-3"])
    return tuple(
        Promise(
            endpoint=("models", endpoint),
            node=draw(nodes),
            revision=1,
            variant="small",
            peak_bytes=draw(st.integers(1, 100)),
            since=NOW,
            done_at=draw(st.sampled_from([None, NOW])),
        )
        for _ in range(draw(st.integers(0, 2)))
    )


@given(st.data())
def test_what_is_promised_is_found_by_its_node_whatever_changed_before(data: st.DataObject) -> None:
    endpoints = ["pod-0", "pod-1", "pod-2"]
    current = {name: data.draw(promises_to(name)) for name in endpoints}
    reservations = Reservations.of(promise for promises in current.values() for promise in promises)
    for name in data.draw(st.lists(st.sampled_from(endpoints), max_size=6)):
        current[name] = data.draw(promises_to(name))
        reservations = reservations.after(("models", name), current[name])
    anew = Reservations.of(promise for promises in current.values() for promise in promises)
    for node in ("edge-1", "edge-2", "edge-3", "edge-4"):
        for name in endpoints:
            asked = {"but_for": ("models", name), "seen_at": NOW, "now": NOW}
            others = [promise for key, held in current.items() if key != name for promise in held]
            expected = 0
            for other in endpoints:
                own = [each for each in others if each.endpoint[1] == other and each.node == node]
                expected += max((each.peak_bytes for each in own if each.done_at is None), default=0)
                expected += max((each.peak_bytes for each in own if each.done_at is not None), default=0)
            assert reservations.reserved_bytes(node, **asked) == anew.reserved_bytes(node, **asked) == expected


def test_after_a_restart_a_load_of_an_order_that_nobody_remembers_counts() -> None:
    """The order went from dense to small, or back to what serves, while dense was loading."""
    for told, active in (("small", None), ("small", "small")):
        for generation, observed, expected in ((3, 2, 120), (3, 3, 40 if active is None else 0)):
            entry = endpoint("pod-a", spec(told), serving(active, observed_generation=observed))
            found = standing_promises("models", [replace(entry, generation=generation)], revisions=[REVISION], now=NOW)
            assert taken(found, seen_at=NOW, now=NOW) == expected
            # An agent that has reported since loads nothing of an earlier order; and no load takes that long.
            status = serving(active)
            later = promises_of(
                KEY, spec=spec(told), status=status, revisions={1: REVISION}, before=found, now=NOW + LOAD_SECONDS + 1
            )
            assert taken(later, seen_at=NOW, now=NOW + LOAD_SECONDS + 1) == (40 if active is None else 0)
