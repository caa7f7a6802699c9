"""Memory on one node, promised to one endpoint and not counted on by its neighbours."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio.decision.types import (
    Action,
    Decision,
    MemoryState,
    Observation,
    Reason,
    ServerState,
    State,
    TrafficWindow,
)
from edgefolio.endpoint_report import report_of_decision, report_of_observation
from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio.specification.endpoint import (
    EndpointSpecification,
    EndpointStatus,
    PortfolioReference,
    RevisionReference,
)
from edgefolio.specification.portfolio_status import RevisionStatus, VariantStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.counting import Endpoint
from edgefolio_operator.deciding import Sight, decide_all, standing_promises
from edgefolio_operator.keeping import Surroundings
from edgefolio_operator.reservations import (
    DONE_SECONDS,
    LOAD_SECONDS,
    PATIENCE_SECONDS,
    Promise,
    Reservations,
    promises_of,
)
from edgefolio_operator.usage import Sample, Usage

NOW = 1_800_000_000.0
MEBIBYTE = 2**20
KEY = ("models", "pod-a")
RESERVE = 32 * MEBIBYTE


def variant(name: str, rank: int, milliseconds: float, mebibytes: int) -> VariantStatus:
    return VariantStatus(
        name=name,
        rank=rank,
        accuracy_percent=str(80 + rank),
        mean_milliseconds=str(milliseconds),
        p95_milliseconds=str(milliseconds * 1.2),
        load_milliseconds="100",
        memory_peak_bytes=mebibytes * MEBIBYTE,
        memory_steady_bytes=mebibytes * MEBIBYTE * 3 // 4,
    )


VARIANTS = (variant("small", 1, 2.0, 40), variant("mid", 2, 5.0, 80), variant("dense", 3, 10.0, 120))
REVISION = RevisionStatus(number=1, manifest_digest="1" * 64, published_time=time_text(NOW), variants=VARIANTS)


def spec(target: str | None = "dense", node: str = "edge-1", name: str = "pod-a") -> EndpointSpecification:
    return EndpointSpecification(
        portfolio_ref=PortfolioReference(name="digits"),
        pod_name=name,
        node_name=node,
        model_name="digits",
        repository_uri="s3://bucket/portfolios",
        revision=RevisionReference(number=1, manifest_digest="1" * 64),
        target_variant=target,
    )


def serving(name: str | None, **fields: Any) -> EndpointStatus:
    return EndpointStatus(active_variant=name, active_revision=1 if name else None, **fields)


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


def test_every_instance_takes_its_part() -> None:
    observation = report_of_observation(
        Observation(active_variant="small", resident_variants=("small",), server=ServerState.SERVING, instances=3),
        now=NOW,
        valid_seconds=60,
    )
    (told,) = promised("dense", "small", observation=observation)
    assert told.peak_bytes == 3 * 120 * MEBIBYTE


@pytest.mark.parametrize("target", [None, "gone"])
def test_no_target_no_promise(target: str | None) -> None:
    for told, revisions in ((spec(target), {1: REVISION}), (spec(), {})):
        assert promises_of(KEY, spec=told, status=serving("small"), revisions=revisions, before=(), now=NOW) == ()


def test_after_a_restart_promises_are_found_again() -> None:
    at = time_text(NOW - 30)
    decision = report_of_decision(_held(), State(last_switch_at=time_seconds(at)), decided_by_agent=False)
    entries = [
        endpoint("pod-a", spec("dense", name="pod-a"), serving("small")),
        endpoint("pod-b", spec("dense", name="pod-b"), serving("dense", decision=decision)),
        endpoint("pod-c", spec("dense", name="pod-c"), serving("dense")),
    ]
    found = standing_promises("models", entries, revisions=[REVISION], now=NOW)
    assert [entry.endpoint[1] for entry in found] == ["pod-a", "pod-b"]
    assert taken(found, seen_at=NOW, now=NOW) == 120
    assert taken(found, seen_at=NOW - 40, now=NOW) == 240


def _held() -> Any:
    return Decision(action=Action.HOLD, reason=Reason.OBJECTIVES_MET, target=None, message="", objectives_met=True)


def endpoint(name: str, told: EndpointSpecification | None, status: EndpointStatus) -> Endpoint:
    pod = {"metadata": {"name": name, "annotations": {}}, "spec": {"nodeName": "edge-1"}, "status": {}}
    node = {"metadata": {"name": "edge-1"}, "status": {"allocatable": {"cpu": "4", "memory": "100Gi"}}}
    return Endpoint(surroundings=Surroundings(pod=pod, node=node), spec=told, status=status)


def portfolio(name: str, latency: int = 100) -> ModelPortfolio:
    return ModelPortfolio.model_validate(
        {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": name, "namespace": "models"},
            "spec": {
                "repository": {"uri": "s3://bucket/portfolios"},
                "serving": {"modelName": "digits"},
                "objectives": {"latencyP95Milliseconds": latency},
                "switching": {
                    "upAfterSeconds": 0,
                    "downAfterSeconds": 0,
                    "settleSeconds": 0,
                    "minDwellSeconds": 0,
                    "maxSwitchesPerHour": 3600,
                },
            },
        }
    )


@dataclass
class Server:
    """One Triton with its agent, as the node's memory sees it: what is loaded, and what is being loaded."""

    name: str
    active: str | None = None
    loading: str | None = None
    ready_at: float = 0.0
    told: EndpointSpecification | None = None
    status: EndpointStatus = field(default_factory=EndpointStatus)
    switched_at: float | None = None

    def steady_bytes(self) -> int:
        return sum(entry.memory_steady_bytes for entry in VARIANTS if entry.name == self.active)

    def peak_bytes(self) -> int:
        return sum(entry.memory_peak_bytes for entry in VARIANTS if entry.name == self.loading)

    def live(self, now: float, delay: float) -> None:
        """Carry orders out, one at a time, each in ``delay`` seconds."""
        if self.loading is not None and now >= self.ready_at:
            self.active, self.loading, self.switched_at = self.loading, None, now
        target = self.told.target_variant if self.told is not None else None
        if self.loading is None and target not in (None, self.active):
            self.loading, self.ready_at = target, now + delay

    def report(self, now: float, *, left: int, slowdown: float) -> None:
        compute = {"small": 2.0, "mid": 5.0, "dense": 10.0}.get(self.active or "", 1.0) * slowdown
        traffic = TrafficWindow(
            seconds=5,
            requests=20,
            failures=0,
            executions=20,
            mean_compute_milliseconds=compute,
            mean_queue_milliseconds=0.1,
            mean_total_milliseconds=compute + 0.5,
            in_flight=0.04,
            batch=1,
            age_seconds=0,
        )
        memory = MemoryState(
            limit_bytes=None, working_set_bytes=self.steady_bytes(), node_available_bytes=left, age_seconds=0
        )
        resident = () if self.active is None else (self.active,)
        seen = Observation(
            active_variant=self.active,
            resident_variants=resident,
            server=ServerState.SERVING,
            traffic=traffic,
            memory=memory,
        )
        self.status = serving(
            self.active,
            resident_variants=resident,
            observation=report_of_observation(seen, now=now, valid_seconds=60),
            decision=report_of_decision(
                _held(), State(compute_factor=slowdown, last_switch_at=self.switched_at), decided_by_agent=False
            ),
        )


@settings(deadline=None, max_examples=40)
@given(
    total=st.integers(60, 900),
    servers=st.integers(2, 5),
    with_metrics=st.booleans(),
    restarts=st.sampled_from([0, 7]),
    seed=st.integers(0, 2**32),
)
def test_simultaneous_switches_never_take_more_than_the_node_has(
    total: int, servers: int, with_metrics: bool, restarts: int, seed: int
) -> None:
    """Two portfolios share a node; agents are slow, report seldom, and change their minds with the load."""
    fleet = [Server(name=f"pod-{number}") for number in range(servers)]
    portfolios = [portfolio("one"), portfolio("two")]
    halves = [fleet[::2], fleet[1::2]]
    states: list[dict[str, State]] = [{}, {}]
    promises: list[tuple[Promise, ...]] = [(), ()]
    sample: Sample | None = None
    now, told, chance = NOW, 0, random.Random(seed)
    for server in fleet:
        # What nobody knows bounds nothing; from the first report on it does.
        server.report(now, left=total * MEBIBYTE, slowdown=1.0)
    for step in range(30):
        now += 2
        used = sum(server.steady_bytes() for server in fleet)
        if with_metrics and step % 8 == 0:
            # What metrics-server says is from some seconds ago.
            sample = Sample(cpu_cores=0.1, memory_bytes=used, time=now, window_seconds=15)
        for server in fleet:
            server.live(now, chance.choice([1, 5, 30]))
        used = sum(server.steady_bytes() for server in fleet)
        for server in fleet:
            if chance.random() < 0.3 or server.status.active_variant != server.active:
                left = total * MEBIBYTE - used - sum(server.peak_bytes() for server in fleet)
                server.report(now, left=max(0, left), slowdown=chance.choice([1.0, 9.0]))
        if restarts and step % restarts == 0:
            states = [{}, {}]
            promises = [
                standing_promises(
                    "models",
                    [endpoint(server.name, server.told, server.status) for server in half],
                    revisions=[REVISION],
                    now=now,
                )
                for half in halves
            ]
        for index, half in enumerate(halves):
            members = [endpoint(server.name, server.told, server.status) for server in half]
            for member in members:
                member.surroundings.node["status"]["allocatable"]["memory"] = f"{total}Mi"  # type: ignore[index]
            kept, made = decide_all(
                portfolios[index],
                members,
                revisions=[REVISION],
                assignments={server.name: 1 for server in half},
                states=states[index],
                sight=Sight(
                    usage=Usage(nodes={"edge-1": sample} if sample is not None else {}, asked=True),
                    reservations=Reservations.of([*promises[0], *promises[1]]),
                ),
                epoch=1,
                now=now,
            )
            promises[index] = made
            states[index] = {decided.spec.pod_name: decided.state for decided in kept}
            for server, decided in zip(half, kept, strict=True):
                told += decided.spec.target_variant not in (None, server.active)
                server.told = decided.spec
        loads = sum(
            entry.memory_peak_bytes
            for server in fleet
            for entry in VARIANTS
            if server.told is not None and entry.name == server.told.target_variant != server.active
        )
        loads = max(loads, sum(server.peak_bytes() for server in fleet))
        assert used + loads <= total * MEBIBYTE or loads == 0
    assert told > 0 or total * MEBIBYTE < RESERVE + VARIANTS[0].memory_peak_bytes


def test_the_second_of_two_upgrades_waits_and_says_why() -> None:
    fleet = [Server(name="pod-0", active="small"), Server(name="pod-1", active="small")]
    told = {name: spec("small", name=name) for name in ("pod-0", "pod-1")}
    for server in fleet:
        server.report(NOW, left=200 * MEBIBYTE, slowdown=1.0)
    members = [endpoint(server.name, told[server.name], server.status) for server in fleet]
    states: dict[str, State] = {}
    reservations = Reservations()
    for second in (1, 2):
        kept, made = decide_all(
            portfolio("one"),
            members,
            revisions=[REVISION],
            assignments={"pod-0": 1, "pod-1": 1},
            states=states,
            sight=Sight(reservations=reservations),
            epoch=1,
            now=NOW + second,
        )
        states = {decided.spec.pod_name: decided.state for decided in kept}
        reservations = Reservations.of(made)
        if second == 1:
            assert [decided.spec.target_variant for decided in kept] == ["dense", "small"]
            assert kept[1].spec.reason == "InsufficientSwitchMemory"
            assert "120.0 MiB are promised to other switches" in kept[1].spec.message
            members[0] = endpoint("pod-0", kept[0].spec, fleet[0].status)
    # And in the next cycle as well, while the first is not done.
    assert kept[1].spec.reason == "InsufficientSwitchMemory"


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
