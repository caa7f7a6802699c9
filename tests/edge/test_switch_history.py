"""Which changes of the served variant an agent remembers, with whose reason; in virtual time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endpoint_orders import endpoint_spec
from test_reports import ACTIVE, MANIFEST, SERVING, Hub

from edgefolio.contract.order_reason import OrderReason
from edgefolio.decision.types import Decision, Reason
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio_edge.agent.cycle_result import CycleResult, ServedVersions
from edgefolio_edge.cluster.orders import Orders
from edgefolio_edge.cluster.status_writer import StatusWriter
from edgefolio_edge.cluster.switch_history import HISTORY_FILE, REMEMBERED, SwitchHistory
from edgefolio_edge.triton.placement import Placement


def serving(variant: int, *, reason: Reason = Reason.PINNED, revision: int = 1) -> CycleResult:
    """A cycle after which that variant of that revision serves."""
    manifest = MANIFEST.model_copy(update={"revision": revision})
    placement = Placement(manifest=manifest, variant=manifest.variants[variant - 1])
    served = ServedVersions(ready=(placement.version,), active=placement, name=placement.variant.name)
    assert SERVING.decision is not None
    return replace(SERVING, served=served, decision=replace(SERVING.decision, reason=reason))


def order(target: str, **changes: Any) -> EndpointSpecification:
    return EndpointSpecification.model_validate({**endpoint_spec(target, autonomy_after_seconds=30), **changes})


class Node:
    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, 1_800_000_000.0
        self.start()

    def start(self) -> None:
        """The agent's process starts."""
        self.orders = Orders(self.folder, clock=lambda: self.now)
        self.orders.heard()
        self.history = SwitchHistory(self.folder, self.orders, clock=lambda: self.now)

    def cycle(self, result: CycleResult) -> None:
        self.now += 1
        self.orders.heard()
        self.history.note(result)

    def told(self) -> list[tuple[str | None, str, str, str]]:
        return [(each.from_variant, each.to_variant, each.reason, each.decided_by) for each in self.history.switches]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_an_ordered_change_has_the_reason_of_the_order_that_asked_for_it(node: Node) -> None:
    node.orders.take(order("variant-2"), generation=1, reason="Initial")
    node.cycle(serving(2, reason=Reason.INITIAL))
    node.orders.take(order("variant-1"), generation=2, reason="LatencyViolated")
    # While the variant loads, the operator already says why it waits.
    node.orders.take(order("variant-1"), generation=2, reason="Settling")
    for _ in range(3):
        node.cycle(serving(1))
    node.orders.take(order("variant-2"), generation=3, reason="MoreAccurateFits")
    node.cycle(serving(2))
    assert node.told() == [
        (None, "variant-2", "Initial", "Operator"),
        ("variant-2", "variant-1", "LatencyViolated", "Operator"),
        ("variant-1", "variant-2", "MoreAccurateFits", "Operator"),
    ]


def test_what_an_agent_did_alone_has_its_own_reason(node: Node) -> None:
    node.orders.take(order("variant-2"), generation=1, reason="ObjectivesMet")
    node.cycle(serving(2))
    node.now += 3600
    node.history.note(serving(1, reason=Reason.LATENCY_VIOLATED))
    assert node.told()[-1] == ("variant-2", "variant-1", "LatencyViolated", "Agent")


def test_an_order_of_an_operator_that_gives_no_reason(node: Node) -> None:
    node.orders.take(order("variant-1"), generation=1)
    node.cycle(serving(1))
    assert node.told() == [(None, "variant-1", "Ordered", "Operator")]


def test_another_revision_s_variant_of_the_same_name_is_a_change(node: Node) -> None:
    node.cycle(serving(1))
    node.cycle(serving(1, revision=2))
    assert [(each.from_revision, each.to_revision) for each in node.history.switches] == [(None, 1), (1, 2)]


def test_restarts_of_agent_and_server_are_no_changes_and_lose_none(node: Node) -> None:
    node.cycle(serving(2))
    node.cycle(serving(1))
    before = node.history.switches
    node.start()
    node.cycle(replace(SERVING, served=None))
    node.cycle(replace(SERVING, served=ServedVersions(ready=(), active=None, name=None)))
    node.cycle(serving(1))
    assert node.history.switches == before
    assert len(before) == 2


def test_only_the_last_ones_are_kept(node: Node) -> None:
    for number in range(50):
        node.cycle(serving(1 + number % 2))
    node.start()
    assert len(node.history.switches) == REMEMBERED
    assert node.history.switches[-1].to_variant == "variant-2"
    # The definition holds no more.
    EndpointStatus(switches=node.history.switches)


@pytest.mark.parametrize("text", ["{", "[]", '{"switches": 7}', '{"switches": [{"time": "now"}]}', "{}"])
def test_a_damaged_file_is_no_history(node: Node, text: str) -> None:
    node.cycle(serving(1))
    (node.folder / HISTORY_FILE).write_text(text)
    node.start()
    node.cycle(serving(2))
    assert node.told() == [(None, "variant-2", "Ordered", "Operator")]


def test_a_full_disk_keeps_nobody_from_deciding(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.cycle(serving(1))
    (node.folder / HISTORY_FILE).unlink()
    (node.folder / HISTORY_FILE).mkdir()
    node.cycle(serving(2))
    assert len(node.history.switches) == 2


def test_the_status_holds_the_history_and_calls_an_order_an_order(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    hub.order()
    history = SwitchHistory(tmp_path, hub.orders, clock=lambda: hub.now)
    hub.writer = StatusWriter(
        hub.orders, hub.write, clock=lambda: hub.now, elapsed=lambda: hub.now, switches=lambda: history.switches
    )
    assert SERVING.decision is not None
    held: Decision = replace(
        SERVING.decision, reason=Reason.PINNED, message="variant-2 is pinned and serves.", objectives_met=False
    )
    result = replace(SERVING, served=ServedVersions(ready=(102,), active=ACTIVE, name="variant-2"), decision=held)
    history.note(result)
    condition = hub.condition(result, "ObjectivesMet")
    status = EndpointStatus.model_validate(hub.reports[-1])
    assert [each.to_variant for each in status.switches] == ["variant-2"]
    assert status.decision is not None
    assert (status.decision.reason, status.decision.message) == ("Ordered", "variant-2 is ordered and serves.")
    assert condition == ("False", "Ordered", "variant-2 is ordered and serves.")
    # What a person pinned is called so.
    hub.orders.take(order("variant-2", pinned=True), generation=2)
    assert hub.condition(result, "ObjectivesMet") == ("False", "Pinned", "variant-2 is pinned and serves.")


def test_a_reason_that_somebody_wrote_is_taken_only_if_it_is_one() -> None:
    spec = order("variant-1", reason="Paused", message="An earlier operator wrote it.")
    stored = OrderReason(reason="Paused", message="An earlier operator wrote it.")
    for told in (None, 7, "", "a b", "x" * 200, "rm -rf /\x1b[2J", ["Paused"]):
        annotations = {"edgefolio.dev/decision-reason": told, "edgefolio.dev/decision-message": told}
        assert OrderReason.of({"annotations": annotations}, spec) == stored
    for metadata in (None, {}, {"annotations": None}, {"annotations": "x"}, []):
        assert OrderReason.of(metadata, spec) == stored
        assert OrderReason.of(metadata, None) == OrderReason()
    newer = OrderReason(reason="Settling", message="m" * 5000)
    told_by_now = OrderReason.of({"annotations": newer.annotations()}, spec)
    assert told_by_now.reason == "Settling"
    assert len(told_by_now.message) == 1024
