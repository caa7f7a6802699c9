"""Memory on one node, promised to one endpoint and not counted on by its neighbours."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st
from played_reports import holding_decision, steady_observation
from shared_node import MEBIBYTE, NOW, REVISION, VARIANTS, endpoint, serving, spec

from edgefolio.contract.endpoint_report import report_of_decision, report_of_observation
from edgefolio.decision.types import MemoryState, State
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.cluster_state.resource_usage import Sample, Usage
from edgefolio_operator.endpoints.memory_reservations import Promise, Reservations
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.reconcilers.endpoint import assign_all, standing_promises

RESERVE = 32 * MEBIBYTE


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
        memory = MemoryState(
            limit_bytes=None, working_set_bytes=self.steady_bytes(), node_available_bytes=left, age_seconds=0
        )
        seen = steady_observation(self.active, compute_milliseconds=compute, memory=memory)
        self.status = serving(
            self.active,
            resident_variants=seen.resident_variants,
            observation=report_of_observation(seen, now=now, valid_seconds=60),
            decision=report_of_decision(
                holding_decision(),
                State(compute_factor=slowdown, last_switch_at=self.switched_at),
                decided_by_agent=False,
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
# The operator was started anew while a load was under way that it had since given up.
@example(total=282, servers=3, with_metrics=False, restarts=7, seed=8)
@example(total=282, servers=3, with_metrics=False, restarts=7, seed=94)
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
            kept, made = assign_all(
                portfolios[index],
                members,
                revisions=[REVISION],
                assigned_revisions={server.name: 1 for server in half},
                states=states[index],
                resources=ResourceView(
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
        kept, made = assign_all(
            portfolio("one"),
            members,
            revisions=[REVISION],
            assigned_revisions={"pod-0": 1, "pod-1": 1},
            states=states,
            resources=ResourceView(reservations=reservations),
            epoch=1,
            now=NOW + second,
        )
        states = {decided.spec.pod_name: decided.state for decided in kept}
        reservations = Reservations.of(made)
        if second == 1:
            assert [decided.spec.target_variant for decided in kept] == ["dense", "small"]
            assert kept[1].told.reason == "InsufficientSwitchMemory"
            assert "120.0 MiB are promised to other switches" in kept[1].told.message
            members[0] = endpoint("pod-0", kept[0].spec, fleet[0].status)
    # And in the next cycle as well, while the first is not done.
    assert kept[1].told.reason == "InsufficientSwitchMemory"
