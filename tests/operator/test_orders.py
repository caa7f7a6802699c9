"""When an agent obeys and when it decides alone; in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgefolio.kubernetes.backoff import Backoff
from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio_edge.cluster.orders import HANDOVER_SECONDS, Orders
from edgefolio_operator.kube.leader_election import LEASE_SECONDS, RENEW_SECONDS


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def spec(**changes: Any) -> EndpointSpecification:
    return EndpointSpecification.model_validate(
        {
            "portfolioRef": {"name": "digits"},
            "podName": "digits-a",
            "nodeName": "edge-1",
            "modelName": "digits",
            "repositoryURI": "s3://bucket/portfolios",
            "revision": {"number": 2, "manifestDigest": "a" * 64},
            "targetVariant": "dense",
            "objectives": {"latencyP95Milliseconds": 20},
            "switching": {"policy": "Recommend", "autonomyAfterSeconds": 30},
            "epoch": 3,
            **changes,
        }
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def orders(tmp_path: Path, clock: Clock) -> Orders:
    made = Orders(tmp_path, clock=clock)
    assert made.take(spec(), generation=1)
    made.heard()
    return made


def test_an_order_is_a_pin_and_is_carried_out_whatever_the_policy(orders: Orders) -> None:
    assert orders.revision == (2, "a" * 64)
    assert orders.objectives.pinned_variant == "dense"
    assert orders.objectives.latency_p95_milliseconds == 20
    assert orders.switching.policy == "Auto"


def test_cut_off_the_agent_decides_by_the_policy_and_the_last_objectives(orders: Orders, clock: Clock) -> None:
    clock.now += 30
    assert not orders.is_autonomous
    clock.now += 1
    assert orders.is_autonomous
    assert orders.objectives.pinned_variant is None
    assert orders.objectives.latency_p95_milliseconds == 20
    assert orders.switching.policy == "Recommend"
    orders.heard()
    assert orders.objectives.pinned_variant == "dense"


def test_a_user_s_pin_holds_also_alone(orders: Orders, clock: Clock) -> None:
    orders.take(spec(pinned=True), generation=2)
    clock.now += 1000
    assert orders.is_autonomous
    assert orders.objectives.pinned_variant == "dense"


def test_back_again_the_operator_has_time_to_see_what_was_done(orders: Orders, clock: Clock) -> None:
    clock.now += 31
    orders.acted()
    orders.heard()
    assert orders.is_autonomous
    clock.now += HANDOVER_SECONDS - 1
    orders.heard()
    assert orders.objectives.pinned_variant is None
    clock.now += 1
    orders.heard()
    assert orders.objectives.pinned_variant == "dense"


def test_a_new_order_ends_the_handover(orders: Orders, clock: Clock) -> None:
    clock.now += 31
    orders.acted()
    orders.heard()
    orders.take(spec(targetVariant="small"), generation=2)
    assert not orders.is_autonomous
    assert orders.objectives.pinned_variant == "small"


def test_an_order_that_asks_for_nothing_else_does_not_end_the_handover(orders: Orders, clock: Clock) -> None:
    """The operator says why it holds, or the user asks for another latency, before the agent's report has arrived."""
    clock.now += 31
    orders.acted()
    orders.heard()
    for generation, change in enumerate(
        ({"reason": "StaleMetrics", "message": "x"}, {"objectives": {"latencyP95Milliseconds": 5}}, {}), 2
    ):
        orders.take(spec(**{"epoch": 3 + generation, **change}), generation=generation)
        assert orders.objectives.pinned_variant is None
    orders.take(spec(targetVariant="small", epoch=9), generation=9)
    assert orders.objectives.pinned_variant == "small"


def test_the_handover_is_longer_than_the_operator_may_need_to_hear_again() -> None:
    backoff = Backoff(clock=lambda: 0.0)  # an informer's, that fails at once each time
    longest = max(backoff.next_pause(is_failure=True) for _ in range(20))
    assert longest + LEASE_SECONDS + RENEW_SECONDS <= HANDOVER_SECONDS


def test_an_operator_that_was_replaced_is_not_obeyed(orders: Orders) -> None:
    assert orders.take(spec(targetVariant="small", epoch=2), generation=5) is False
    assert orders.objectives.pinned_variant == "dense"


def test_orders_survive_a_restart_without_the_api(orders: Orders, tmp_path: Path, clock: Clock) -> None:
    again = Orders(tmp_path, clock=clock)
    assert again.order is not None
    assert again.order.spec == spec()
    assert again.objectives.pinned_variant == "dense"
    clock.now += 31
    assert again.is_autonomous
    assert again.take(spec(epoch=2), generation=1) is False


def test_a_damaged_file_is_no_order(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "orders.json").write_text("{")
    made = Orders(tmp_path, clock=clock)
    assert made.order is None
    assert made.revision is None
    assert made.objectives.pinned_variant is None


def test_the_order_in_advance_reaches_the_core_and_a_person_s_pin_has_none(orders: Orders) -> None:
    assert orders.objectives.descend_at_percent is None
    orders.take(spec(descendAtPercent=125), generation=2)
    assert orders.objectives.descend_at_percent == 125
    orders.take(spec(descendAtPercent=125, pinned=True), generation=3)
    assert orders.objectives.descend_at_percent is None


def test_down_as_ordered_in_advance_the_agent_decides_until_another_variant_is_ordered(
    orders: Orders, clock: Clock
) -> None:
    orders.take(spec(descendAtPercent=125), generation=2)
    orders.acted(left="dense")
    assert orders.is_autonomous
    assert orders.has_descended
    assert orders.objectives.pinned_variant is None, "it is not sent back to what it left"
    # The operator writes for other reasons before it has seen what serves.
    orders.take(spec(descendAtPercent=125, objectives={"latencyP95Milliseconds": 5}), generation=3)
    clock.now += HANDOVER_SECONDS / 2
    orders.heard()
    assert orders.objectives.pinned_variant is None
    orders.take(spec(descendAtPercent=125, targetVariant="small"), generation=4)
    orders.heard()
    assert not orders.is_autonomous
    assert not orders.has_descended
    assert orders.objectives.pinned_variant == "small"


def test_an_order_that_came_while_it_went_down_counts(orders: Orders) -> None:
    orders.take(spec(targetVariant="mid"), generation=2)
    orders.acted(left="dense")
    assert not orders.is_autonomous
    assert orders.objectives.pinned_variant == "mid"
