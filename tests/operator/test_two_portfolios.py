"""Two portfolios whose endpoints share a node: one operator never gives both of them the same memory."""

from __future__ import annotations

from typing import Any

import pytest
from played_reports import VARIANTS
from reconciled_site import Site, published

from edgefolio.decision.estimates.memory import NODE_RESERVE_BYTES
from edgefolio_operator.cluster_state.resource_usage import PodSample, Sample, Usage

NODE, MEBIBYTE = "edge-1", 2**20
ALLOCATABLE = 2048
PEAK = {variant.name: variant.memory_peak_bytes / MEBIBYTE for variant in VARIANTS}


class Shared:
    """A node that serves for two namespaces; the operator is one, and its promises count for both."""

    def __init__(self) -> None:
        self.sites = [Site(nodes=1), Site(nodes=1)]
        self.own: list[Any] = [(), ()]
        self.sites[1].portfolio["metadata"].update(namespace="faces", uid="f")
        for number, site in enumerate(self.sites):
            self.cycle(number)
            site.end_job(published(1))
            self.cycle(number)
            site.report(NODE)
            self.cycle(number)

    def cycle(self, number: int, seconds: float = 1.0) -> None:
        """One cycle of one of them, beside what the other was promised."""
        site = self.sites[number]
        site.promises = (*self.own[number], *self.own[1 - number])
        self.own[number] = site.cycle(seconds).promises

    def seconds(self, count: int, *, free: float, slowdown: float = 1.0, obey: bool = True) -> list[list[str | None]]:
        """So many seconds with ``free`` MiB on the node; what each was told to serve, second by second."""
        told = []
        for _ in range(count):
            for number, site in enumerate(self.sites):
                self.measure(site, free)
                site.report(NODE, slowdown=slowdown, met=slowdown < 2, obey=obey)
                self.cycle(number)
            told.append(self.targets())
        return told

    def measure(self, site: Site, free: float) -> None:
        sample = Sample(
            cpu_cores=0.5, memory_bytes=int((ALLOCATABLE - free) * MEBIBYTE), time=site.now, window_seconds=1
        )
        pods = {
            (each.portfolio["metadata"]["namespace"], f"digits-{NODE}"): PodSample(
                total=Sample(cpu_cores=0.1, memory_bytes=64 * MEBIBYTE, time=site.now, window_seconds=1),
                server_bytes=64 * MEBIBYTE,
            )
            for each in self.sites
        }
        site.usage = Usage(nodes={NODE: sample}, pods=pods, asked=True)

    def targets(self) -> list[str | None]:
        return [site.targets()[NODE] for site in self.sites]

    def press(self, *conditions: str) -> None:
        for site in self.sites:
            assert site.nodes is not None
            site.nodes[NODE]["status"]["conditions"] = [
                {"type": kind, "status": "True"} for kind in ("Ready", *conditions)
            ]


@pytest.fixture
def shared() -> Shared:
    """Both serve the faster variant; their node was slow until now."""
    node = Shared()
    node.seconds(12, free=1024, slowdown=4.0)
    assert node.targets() == ["small", "small"]
    return node


def test_with_room_for_both_both_go_up(shared: Shared) -> None:
    shared.seconds(60, free=1024)
    assert shared.targets() == ["dense", "dense"]


def test_with_room_for_one_the_other_waits_and_says_why(shared: Shared) -> None:
    """Until the first has been seen to take it; what is left then decides."""
    free = NODE_RESERVE_BYTES / MEBIBYTE + 1.6 * PEAK["dense"]
    told: list[list[str | None]] = []
    for _ in range(60):
        told += shared.seconds(1, free=free, obey=False)
        if "dense" in told[-1]:
            break
    assert sorted(map(str, told[-1])) == ["dense", "small"]
    # The agent is still loading: nobody else is given the same memory meanwhile.
    told = shared.seconds(5, free=free, obey=False)
    assert all(sorted(map(str, targets)) == ["dense", "small"] for targets in told)
    waiting = shared.sites[told[-1].index("small")]
    assert waiting.reason(NODE) == "InsufficientSwitchMemory"
    assert "promised to other switches" in str(waiting.reason(NODE, "message"))
    # It is done, and took what it was promised.
    shared.seconds(30, free=free - PEAK["dense"])
    assert sorted(map(str, shared.targets())) == ["dense", "small"]


def test_a_shortage_takes_both_down_and_neither_up(shared: Shared) -> None:
    shared.seconds(60, free=1024)
    shared.press("MemoryPressure")
    shared.seconds(8, free=128)
    assert shared.targets() == ["small", "small"]
    shared.seconds(60, free=128)
    assert shared.targets() == ["small", "small"]
    shared.press()
    shared.seconds(60, free=1024)
    assert shared.targets() == ["dense", "dense"]
