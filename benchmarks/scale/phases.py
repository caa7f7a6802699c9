"""One run: everything that is measured with one number of endpoints."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from typing import Any

from benchmarks.scale import settings
from benchmarks.scale.agents import Fleet, SimulatedAgent, Told
from benchmarks.scale.installation import Installation, installed
from benchmarks.scale.measuring import forget_peak, rates, sample, spread

from edgefolio.kubernetes.access import Access


def run(size: int) -> dict[str, Any]:
    """Set ``size`` endpoints up and measure them."""
    before = os.getloadavg()[0]
    with installed(size) as installation:
        measured = asyncio.run(_phases(installation, size))
    return {"endpoints": size, "loadAverageBefore": round(before, 2), **measured}


async def _phases(installation: Installation, size: int) -> dict[str, Any]:
    started = time.monotonic()
    async with Fleet(
        Access.of_kubeconfig(installation.kubernetes.kubeconfig),
        namespace=settings.NAMESPACE,
        selector=installation.selector,
        count=size,
        folder=installation.folder / "agents",
    ) as fleet:
        await fleet.wait_for(lambda agents: len(agents) == size and all(agent.serves for agent in agents))
        serving = time.monotonic() - started
        say(f"{size} endpoints serve after {serving:.1f} s")
        await asyncio.sleep(settings.SETTLE_SECONDS)
        result: dict[str, Any] = {"fromStartToServingSeconds": round(serving, 1)}
        result["idle"] = await _idle(installation)
        say(f"idle: {result['idle']}")
        result["objective"] = await _objectives(installation, fleet)
        say(f"objective: {result['objective']}")
        result["contention"] = await _contention(installation, fleet)
        say(f"contention: {result['contention']}")
        await asyncio.to_thread(installation.wait_until_ready)
        return result


async def _idle(installation: Installation) -> dict[str, Any]:
    """Nothing is asked and nothing happens but reports."""
    forget_peak(installation)
    before = await asyncio.to_thread(sample, installation)
    await asyncio.sleep(settings.IDLE_SECONDS)
    load = os.getloadavg()[0]
    after = await asyncio.to_thread(sample, installation)
    return {**rates(before, after), "loadAverage": round(load, 2)}


async def _objectives(installation: Installation, fleet: Fleet) -> dict[str, Any]:
    """From a changed objective until every endpoint's spec carries it, and every agent has said that it saw it.

    Its price is the operator's processor time until all specs carry it. Acknowledgements come over some seconds, in
    which the operator does what it does when nothing is asked, too.
    """
    forget_peak(installation)
    rounds: list[dict[str, Any]] = []
    for milliseconds in settings.OBJECTIVES:
        await asyncio.sleep(settings.PAUSE_SECONDS)
        before = await asyncio.to_thread(sample, installation)
        asked = time.monotonic()
        await asyncio.to_thread(installation.ask, milliseconds)
        await fleet.wait_for(lambda agents, wanted=milliseconds: all(_ordered(agent, wanted) for agent in agents))
        after = await asyncio.to_thread(sample, installation)
        await fleet.wait_for(lambda agents, wanted=milliseconds: all(reported_at(agent, wanted) for agent in agents))
        orders = [_ordered(agent, milliseconds) for agent in fleet.agents.values()]
        reports = [reported_at(agent, milliseconds) for agent in fleet.agents.values()]
        rounds.append(
            {
                "specs": spread(order.at - asked for order in orders if order is not None),
                "reports": spread(at - asked for at in reports),
                "processorSeconds": round(after.processor_seconds - before.processor_seconds, 3),
                "operatorWrites": round(sum(after.operator_writes.values()) - sum(before.operator_writes.values())),
            }
        )
    final = await asyncio.to_thread(sample, installation)
    return {
        "allSpecsSeconds": statistics.median(entry["specs"]["last"] for entry in rounds),
        "allReportsSeconds": statistics.median(entry["reports"]["last"] for entry in rounds),
        "processorSeconds": statistics.median(entry["processorSeconds"] for entry in rounds),
        "peakMebibytes": round(final.peak_bytes / 2**20, 1),
        "loadAverage": round(os.getloadavg()[0], 2),
        "rounds": rounds,
    }


def _ordered(agent: SimulatedAgent, milliseconds: int) -> Told | None:
    """The first order with this objective."""
    return next((told for told in agent.told if told.spec.objectives.latency_p95_milliseconds == milliseconds), None)


def reported_at(agent: SimulatedAgent, milliseconds: int) -> float:
    """When the agent reported that it has seen the order with this objective; 0 if it has not."""
    order = _ordered(agent, milliseconds)
    if order is None:
        return 0.0
    return next((entry.at for entry in agent.reported if entry.observed_generation >= order.generation), 0.0)


async def _contention(installation: Installation, fleet: Fleet) -> dict[str, Any]:
    """Some endpoints slow down at the same instant: from the report of it until another variant is ordered."""
    agents = sorted(fleet.agents.values(), key=lambda agent: agent.told[-1].spec.pod_name)
    chosen = random.Random(1).sample(agents, max(1, len(agents) * settings.SLOW_PERCENT // 100))
    targets = [agent.told[-1].spec.target_variant for agent in chosen]
    others = [agent for agent in agents if agent not in chosen]
    stayed = [agent.told[-1].spec.target_variant for agent in others]
    before = await asyncio.to_thread(sample, installation)
    for agent in chosen:
        agent.slowdown = settings.SLOWDOWN
    pairs = list(zip(chosen, targets, strict=True))
    await fleet.wait_for(lambda _: all(agent.told[-1].spec.target_variant != target for agent, target in pairs))
    await fleet.wait_for(lambda _: all(agent.serves for agent in chosen))
    after = await asyncio.to_thread(sample, installation)
    if stayed != [agent.told[-1].spec.target_variant for agent in others]:
        raise RuntimeError("an endpoint that was not slow was moved")
    delays = []
    for agent, target in pairs:
        seen = next(entry.at for entry in agent.reported if entry.slowdown > 1)
        ordered = next(entry.at for entry in agent.told if entry.at > seen and entry.spec.target_variant != target)
        delays.append(ordered - seen)
    needed = agents[0].told[-1].spec.switching.down_after_seconds
    return {
        "endpoints": len(chosen),
        "downAfterSeconds": needed,
        "reportToOrderSeconds": spread(delays),
        "beyondDownAfterSeconds": spread(delay - needed for delay in delays),
        "processorSeconds": round(after.processor_seconds - before.processor_seconds, 3),
        "loadAverage": round(os.getloadavg()[0], 2),
    }


def say(message: str) -> None:
    """One line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)
