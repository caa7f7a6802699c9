"""Resident memory of agents, Tritons and the operator in the course of a soak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from bed_machine import container_id
from edge_site import SYSTEM, EdgeSite


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Resident bytes of one container's process, with its children, at seconds since the epoch."""

    at: float
    name: str
    process: int
    resident: int


def sampled(site: EdgeSite, nodes: Sequence[str], *, at: float) -> list[Sample]:
    """How much everything of Edgefolio's takes now."""
    found = []
    for node in nodes:
        pod = site.pod_on(node)
        for container in ("agent", "triton"):
            process = site.machine.process_of(node, container_id(pod, container))
            found.append(Sample(at=at, name=f"{container} on {node}", process=process, resident=_resident(process)))
    system = EdgeSite(site.kubernetes, site.machine.run, namespace=SYSTEM)
    for number, pod in enumerate(system.pods("app.kubernetes.io/component=operator"), start=1):
        identity = container_id(pod, pod["spec"]["containers"][0]["name"])
        process = site.machine.process_of(pod["spec"]["nodeName"], identity)
        found.append(Sample(at=at, name=f"operator {number}", process=process, resident=_resident(process)))
    return found


def growth(samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """By name: mebibytes first, last and most, and how the process that lived longest grew while it lived."""
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_name[sample.name].append(sample)
    return {name: _growth(found) for name, found in sorted(by_name.items())}


def _growth(samples: Sequence[Sample]) -> dict[str, Any]:
    by_process: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_process[sample.process].append(sample)
    longest = max(by_process.values(), key=lambda found: found[-1].at - found[0].at)
    return {
        "firstMebibytes": _mebibytes(samples[0]),
        "lastMebibytes": _mebibytes(samples[-1]),
        "mostMebibytes": max(map(_mebibytes, samples)),
        "processes": len(by_process),
        "longestLivedSeconds": round(longest[-1].at - longest[0].at),
        "longestLivedGrewMebibytes": round(_mebibytes(longest[-1]) - _mebibytes(longest[0]), 1),
    }


def _mebibytes(sample: Sample) -> float:
    return round(sample.resident / 2**20, 1)


def _resident(identity: int) -> int:
    process = psutil.Process(identity)
    total = 0
    for entry in (process, *process.children(recursive=True)):
        try:
            total += int(entry.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return total
