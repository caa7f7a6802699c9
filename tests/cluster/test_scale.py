"""What acts as agents in the benchmark of scale is taken for agents by operator and API server."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from benchmarks.scale import settings
from benchmarks.scale.agents import Fleet
from benchmarks.scale.installation import PROGRAMS, Installation, installed
from benchmarks.scale.measuring import rates, sample
from benchmarks.scale.phases import reported_at
from control_plane import NotBuilt, programs

from edgefolio.kubernetes.access import Access

SETTLED = "ObjectivesMet"


def test_simulated_agents_serve_and_follow_an_objective() -> None:
    try:
        programs(*PROGRAMS)
    except NotBuilt as error:
        pytest.skip(str(error))
    with installed(2) as installation:
        asyncio.run(serve_and_follow(installation))
        installation.wait_until_ready()


async def serve_and_follow(installation: Installation) -> None:
    async with Fleet(
        Access.of_kubeconfig(installation.kubernetes.kubeconfig),
        namespace=settings.NAMESPACE,
        selector=installation.selector,
        count=2,
        folder=installation.folder / "agents",
    ) as fleet:
        await fleet.wait_for(lambda agents: len(agents) == 2 and all(agent.serves for agent in agents), seconds=60)
        assert {agent.told[-1].spec.target_variant for agent in fleet.agents.values()} == {"v5"}
        # Until the first figures have come, the reason changes, and each change is a write.
        await fleet.wait_for(lambda agents: all(agent.told[-1].reason == SETTLED for agent in agents), seconds=60)
        before, told = sample(installation), {agent: len(agent.told) for agent in fleet.agents.values()}
        await asyncio.to_thread(installation.ask, 19)
        await fleet.wait_for(lambda agents: all(reported_at(agent, 19) for agent in agents), seconds=60)
        found = rates(before, sample(installation))
        # No order is written for nothing: each reaches its agent as another, and the objective changes in one of them.
        writes = found["operatorWrites"]["ModelEndpoint"]
        await fleet.wait_for(lambda _: sum(len(agent.told) - told[agent] for agent in told) >= writes, seconds=10)
        for agent, known in told.items():
            orders = agent.told[known - 1 :]
            assert all((one.spec, one.reason) != (other.spec, other.reason) for one, other in pairwise(orders))
            asked = [order.spec.objectives.latency_p95_milliseconds for order in orders]
            assert sum(one != other for one, other in pairwise(asked)) == 1
        assert writes == 2
        assert found["errors"] == 0
        assert 20 < found["residentMebibytes"] < 150
