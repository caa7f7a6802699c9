"""What acts as agents in the benchmark of scale is taken for agents by operator and API server."""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.scale import settings
from benchmarks.scale.agents import Fleet
from benchmarks.scale.installation import PROGRAMS, Installation, installed
from benchmarks.scale.measuring import rates, sample
from benchmarks.scale.phases import reported_at
from control_plane import NotBuilt, programs

from edgefolio_operator.api import Access


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
        before = sample(installation)
        await asyncio.to_thread(installation.ask, 19)
        await fleet.wait_for(lambda agents: all(reported_at(agent, 19) for agent in agents), seconds=60)
        found = rates(before, sample(installation))
        # Each is told once; a reason that changes on the way is told as well.
        assert 2 <= found["operatorWrites"]["ModelEndpoint"] <= 4
        assert found["errors"] == 0
        assert 20 < found["residentMebibytes"] < 150
