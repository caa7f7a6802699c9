"""The agent's figures and the cluster's, joined: the more careful one counts, and what is stale changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio.decision.types import MemoryState, NodeState, Observation, ServerState
from edgefolio_operator.cluster_state.resource_usage import PodSample, Sample
from edgefolio_operator.endpoints.observation import ClusterView, joined

NOW = 1_800_000_000.0
MEBIBYTE = 2**20


def node(*, cpu: str | None = "2", memory: str | None = "1Gi", pressures: tuple[str, ...] = ()) -> dict[str, Any]:
    total = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value is not None}
    conditions = [{"type": kind, "status": "True"} for kind in ("Ready", *pressures)]
    conditions += [{"type": "NetworkUnavailable", "status": "False"}]
    return {"metadata": {"name": "edge-1"}, "status": {"conditions": conditions, "allocatable": total}}


def sample(*, cores: float = 1.0, mebibytes: int = 512, age: float = 10.0) -> Sample:
    return Sample(cpu_cores=cores, memory_bytes=mebibytes * MEBIBYTE, time=NOW - age, window_seconds=15)


def pod(*, cores: float = 0.5, server: int | None = 100, age: float = 10.0) -> PodSample:
    total = sample(cores=cores, mebibytes=120, age=age)
    return PodSample(total=total, server_bytes=None if server is None else server * MEBIBYTE)


def seen(memory: MemoryState | None = None) -> Observation:
    return Observation(active_variant="a", resident_variants=("a",), server=ServerState.SERVING, memory=memory)


def figures(*, limit: int | None = 256, used: int | None = 80, left: int | None = 700, age: float = 1) -> MemoryState:
    def amount(value: int | None) -> int | None:
        return None if value is None else value * MEBIBYTE

    return MemoryState(
        limit_bytes=amount(limit), working_set_bytes=amount(used), node_available_bytes=amount(left), age_seconds=age
    )


def join(observation: Observation, view: ClusterView, *, settled_at: float = -math.inf) -> Observation:
    return joined(observation, view, observed_at=NOW - 1, settled_at=settled_at, now=NOW)


def test_the_more_careful_figure_counts() -> None:
    view = ClusterView(node=node(), node_sample=sample(), pod_sample=pod())
    memory = join(seen(figures()), view).memory
    # The node has 1024 - 512 MiB left, the agent saw 700; the pod uses 100, the agent saw 80.
    assert memory == figures(used=100, left=512)
    memory = join(seen(figures(used=150, left=300)), view).memory
    assert memory == figures(used=150, left=300)


def test_the_agent_s_age_stands() -> None:
    view = ClusterView(node=node(), node_sample=sample(age=50), pod_sample=pod(age=50))
    memory = join(seen(figures(age=14)), view).memory
    assert memory is not None
    assert memory.age_seconds == 14


def test_an_agent_that_knows_no_memory_is_helped() -> None:
    view = ClusterView(node=node(), node_sample=sample(), pod_sample=pod())
    assert join(seen(None), view).memory == figures(limit=None, used=100, left=512, age=0)
    assert join(seen(None), ClusterView()).memory is None


def test_others_are_the_node_without_this_pod() -> None:
    view = ClusterView(node=node(cpu="4"), node_sample=sample(cores=3.4), pod_sample=pod(cores=0.4))
    state = join(seen(), view).node
    assert state is not None
    assert state.others_cpu_percent == pytest.approx(75)
    busiest = replace(view, node_sample=sample(cores=9))
    assert join(seen(), busiest).node == NodeState(others_cpu_percent=100)
    rounding = replace(view, node_sample=sample(cores=0.3))
    assert join(seen(), rounding).node == NodeState(others_cpu_percent=0)


@pytest.mark.parametrize(
    "change",
    [
        {"node_sample": None},
        {"pod_sample": None},
        {"node_sample": sample(age=70)},
        {"pod_sample": pod(age=70)},
        {"node": None},
        {"node": node(cpu=None)},
        {"node": node(cpu="0")},
    ],
)
def test_of_others_nothing_is_concluded_from_half_of_it(change: dict[str, Any]) -> None:
    view = replace(ClusterView(node=node(), node_sample=sample(), pod_sample=pod()), **change)
    found = join(seen(), view).node
    assert found is None or found.others_cpu_percent is None


def test_memory_from_before_the_last_switch_is_of_another_variant() -> None:
    view = ClusterView(node=node(), node_sample=sample(), pod_sample=pod(server=250))
    assert join(seen(figures()), view, settled_at=NOW - 5).memory == figures()
    # Processor time of the others is not.
    state = join(seen(figures()), view, settled_at=NOW - 5).node
    assert state is not None
    assert state.others_cpu_percent == pytest.approx(25)


def test_shortages_need_no_samples() -> None:
    view = ClusterView(node=node(pressures=("MemoryPressure", "PIDPressure")))
    assert join(seen(), view).node == NodeState(pressures=("MemoryPressure", "PIDPressure"))


def test_a_figure_is_charged_with_what_it_cannot_show() -> None:
    """The agent's figure is older than the promise that was kept meanwhile, the node's sample is newer."""
    at = {NOW - 1: 200 * MEBIBYTE, NOW - 10: 0}
    view = ClusterView(node=node(), node_sample=sample(), pod_sample=pod(), reserved=at.__getitem__)
    found = join(seen(figures(left=600)), view)
    assert found.memory == figures(used=100, left=512)
    # Of 600 200 are promised: 400 are left, 112 less than the 512 that stand in the figures.
    assert found.node is not None
    assert found.node.reserved_bytes == 112 * MEBIBYTE


amounts = st.none() | st.integers(0, 2000)
ages = st.floats(-400, 400) | st.sampled_from([math.nan, math.inf])
samples = st.builds(sample, cores=st.floats(0, 100), mebibytes=st.integers(0, 2000), age=ages)
pods = st.builds(pod, cores=st.floats(0, 100), server=amounts, age=ages)
nodes = st.builds(
    node,
    cpu=st.sampled_from([None, "0", "2", "1500m", "many"]),
    memory=st.sampled_from([None, "0", "1Gi", "524288Ki", "much"]),
    pressures=st.sampled_from([(), ("MemoryPressure",)]),
)
reports = st.none() | st.builds(figures, limit=amounts, used=amounts, left=amounts, age=st.floats(0, 100))


@given(
    memory=reports,
    node=st.none() | nodes,
    node_sample=st.none() | samples,
    pod_sample=st.none() | pods,
    reserved=st.integers(0, 500),
    settled=st.sampled_from([-math.inf, NOW - 20, NOW]),
)
def test_headroom_is_never_above_either_source_and_staleness_changes_nothing(
    memory: MemoryState | None,
    node: dict[str, Any] | None,
    node_sample: Sample | None,
    pod_sample: PodSample | None,
    reserved: int,
    settled: float,
) -> None:
    view = ClusterView(
        node=node, node_sample=node_sample, pod_sample=pod_sample, reserved=lambda _: reserved * MEBIBYTE
    )
    found = join(seen(memory), view, settled_at=settled)
    after = found.memory
    if memory is not None:
        assert after is not None
        assert (after.limit_bytes, after.age_seconds) == (memory.limit_bytes, memory.age_seconds)
        if memory.node_available_bytes is not None:
            assert after.node_available_bytes is not None
            assert after.node_available_bytes <= memory.node_available_bytes
        if memory.working_set_bytes is not None:
            assert after.working_set_bytes is not None
            assert after.working_set_bytes >= memory.working_set_bytes
    if after is not None and after.node_available_bytes is not None and node is not None and node_sample is not None:
        fresh = abs(node_sample.time - NOW) <= 60 and node_sample.time >= settled
        total = {"1Gi": 1024 * MEBIBYTE, "524288Ki": 512 * MEBIBYTE}.get(node["status"]["allocatable"].get("memory"))
        if fresh and total is not None:
            assert after.node_available_bytes <= max(0, total - node_sample.memory_bytes)
    state = found.node or NodeState()
    assert 0 <= state.reserved_bytes <= reserved * MEBIBYTE
    assert state.others_cpu_percent is None or 0 <= state.others_cpu_percent <= 100

    # Samples that are stale are samples that are not there.
    def kept(entry: Sample | None) -> bool:
        return entry is not None and entry.is_fresh(now=NOW, stale_after=60)

    pruned = replace(
        view,
        node_sample=node_sample if kept(node_sample) else None,
        pod_sample=pod_sample if pod_sample is not None and kept(pod_sample.total) else None,
    )
    assert join(seen(memory), pruned, settled_at=settled) == found
    if pruned.node_sample is None and pruned.pod_sample is None:
        assert found.memory == memory
