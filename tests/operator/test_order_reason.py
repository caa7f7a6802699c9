"""The reason of an order is no order: it is told beside it, and whoever acted alone is not taken back by it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from reconciled_site import Site

from edgefolio.contract.order_reason import MESSAGE_ANNOTATION, REASON_ANNOTATION, OrderReason
from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio_edge.cluster.orders import HANDOVER_SECONDS, Orders
from edgefolio_operator.kube.cache import Change

NODE, NAME = "edge-1", "digits-edge-1"
PAUSE = "edgefolio.dev/paused"


def written(site: Site, seconds: float = 1.0) -> list[dict[str, Any]]:
    """The ModelEndpoints that the next cycle writes."""
    return [copy.deepcopy(entry) for entry in site.cycle(seconds).apply if entry["kind"] == "ModelEndpoint"]


def steady(site: Site, *, cycles: int = 4) -> None:
    for _ in range(cycles):
        for node in ("edge-1", "edge-2"):
            site.report(node)
        site.cycle()


def test_another_reason_writes_the_same_order() -> None:
    site = Site().served()
    steady(site)
    before = copy.deepcopy(site.endpoints[NAME])
    # Its report runs out: there is nothing to do but to say so.
    (document,) = [entry for entry in written(site, 45) if entry["metadata"]["name"] == NAME]
    assert site.reason(NODE) == "StaleMetrics"
    assert before["metadata"]["annotations"][REASON_ANNOTATION] == "ObjectivesMet"
    assert document["spec"] == before["spec"]
    assert site.reason(NODE, "message")
    # Said once, while only the figures in it change.
    assert [document for _ in range(5) for document in written(site, 3)] == []


def test_every_reason_has_a_message_and_none_is_in_a_spec() -> None:
    site = Site().served()
    seen = set()
    for slowdown in (1.0, 4.0, 4.0, 1.0, 1.0):
        for _ in range(8):
            site.report(NODE, slowdown=slowdown, met=slowdown < 2)
            site.cycle(6)
            seen.add(site.reason(NODE))
            assert site.reason(NODE, "message")
            assert not {"reason", "message"} & site.endpoints[NAME]["spec"].keys()
    assert {"LatencyViolated", "MoreAccurateFits", "ObjectivesMet"} <= seen


def as_an_earlier_operator_wrote_it(site: Site) -> None:
    for entry in site.endpoints.values():
        told = OrderReason.of(entry["metadata"], None)
        del entry["metadata"]["annotations"]
        entry["spec"] |= {"reason": told.reason, "message": told.message}


def test_a_stored_reason_of_an_earlier_operator_stays_until_there_is_another() -> None:
    site = Site().served()
    steady(site)
    as_an_earlier_operator_wrote_it(site)
    site.states = {}
    for node in ("edge-1", "edge-2"):
        site.report(node)
    plan = site.cycle()
    assert [entry["kind"] for entry in plan.apply] == []
    assert plan.events == ()
    site.pods[0]["metadata"]["annotations"][PAUSE] = "true"
    (document,) = written(site)
    assert document["metadata"]["name"] == NAME
    assert document["metadata"]["annotations"][REASON_ANNOTATION] == "Paused"
    assert not {"reason", "message"} & document["spec"].keys()


def test_an_agent_of_before_reads_an_order_without_a_reason() -> None:
    """It asks for nothing but the fields that it knows, and the reason was optional there."""
    site = Site().served()
    spec = EndpointSpecification.model_validate(site.endpoints[NAME]["spec"])
    assert (spec.reason, spec.message) == (None, "")


@pytest.mark.parametrize("told", ["", "two words", "x" * 500, "\x1b[2J", "Paused\n", None, 7, {"a": 1}])
def test_a_reason_that_somebody_else_wrote_is_set_right(told: Any) -> None:
    site = Site().served()
    steady(site)
    site.endpoints[NAME]["metadata"]["annotations"] = {REASON_ANNOTATION: told, MESSAGE_ANNOTATION: told}
    (document,) = written(site)
    assert document["metadata"]["annotations"][REASON_ANNOTATION] == "ObjectivesMet"
    assert written(site) == []


def test_its_own_words_are_no_input_of_the_operator() -> None:
    def endpoint(annotations: dict[str, str], generation: int = 1) -> dict[str, Any]:
        return {"metadata": {"name": NAME, "generation": generation, "annotations": annotations}}

    paused = {REASON_ANNOTATION: "Paused", MESSAGE_ANNOTATION: "x"}
    settled = {REASON_ANNOTATION: "ObjectivesMet", MESSAGE_ANNOTATION: "y"}
    assert not Change(before=endpoint(paused), after=endpoint(settled)).is_by_user
    assert Change(before=endpoint(paused), after=endpoint({**paused, PAUSE: "true"})).is_by_user
    assert Change(before=endpoint(paused), after=endpoint(paused, generation=2)).is_by_user


class CutOff:
    """One node with a slow processor whose agent was cut off, and went to the faster variant by itself."""

    def __init__(self, folder: Path) -> None:
        self.site = Site().served()
        steady(self.site)
        self.orders = Orders(folder, clock=lambda: self.site.now)
        self.hear()
        self.site.cycle(40)
        assert self.orders.is_autonomous
        self.orders.acted()
        assert self.site.targets()[NODE] == "dense"

    def hear(self) -> None:
        """The agent's watch answers: whatever is stored reaches it."""
        entry = self.site.endpoints[NAME]
        spec = EndpointSpecification.model_validate(entry["spec"])
        reason = OrderReason.of(entry["metadata"], spec).reason
        self.orders.heard()
        assert self.orders.take(spec, generation=1, reason=reason)

    def report(self, *, slowdown: float) -> None:
        """The agent's report of what it did reaches the operator."""
        entry = self.site.endpoints[NAME]
        alone = self.orders.is_autonomous
        entry["status"]["activeVariant"] = "small" if alone else entry["spec"]["targetVariant"]
        self.site.report(NODE, slowdown=slowdown, obey=False)
        entry["status"]["decision"]["decidedBy"] = "Agent" if alone else "Operator"


@pytest.mark.parametrize("late", [0, 1, 9, 14, 16, 31, 45])
def test_what_an_agent_did_alone_is_taken_over(tmp_path: Path, late: int) -> None:
    """However late its report reaches the operator, which meanwhile says this and that of the endpoint."""
    node = CutOff(tmp_path)
    site = node.site
    assert late < HANDOVER_SECONDS
    told = set()
    for second in range(late):
        # What people do meanwhile changes the reason, and their objectives the order, but not what is to serve.
        site.pods[0]["metadata"]["annotations"] = {PAUSE: "true"} if second % 2 else {}
        site.edit(objectives={"latencyP95Milliseconds": 20 + second % 3})
        site.cycle()
        told.add(site.reason(NODE))
        node.hear()
        assert node.orders.objectives.pinned_variant is None, second
    assert late < 3 or len(told) > 1
    site.pods[0]["metadata"]["annotations"] = {}
    for _ in range(25):
        node.report(slowdown=4.0)
        site.cycle()
        node.hear()
        assert site.targets()[NODE] == "small"
    assert node.orders.objectives.pinned_variant == "small"
    assert not node.orders.is_autonomous


def test_what_is_no_longer_right_is_changed_with_a_reason(tmp_path: Path) -> None:
    node = CutOff(tmp_path)
    reasons = []
    for _ in range(90):
        node.report(slowdown=1.0)
        events = node.site.cycle().events
        node.hear()
        reasons += [event.reason for event in events if event.endpoint == NAME and "->" in event.message]
    assert node.site.targets()[NODE] == "dense"
    assert reasons[-1] == "MoreAccurateFits"
