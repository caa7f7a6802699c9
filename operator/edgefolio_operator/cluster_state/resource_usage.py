"""CPU and memory samples of nodes and pods, parsed from ``metrics.k8s.io/v1beta1``. Pure.

Parsing is total: an entry that cannot be read is left out, as if it were missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgefolio.contract.pod import AGENT_CONTAINER, TRITON_CONTAINER
from edgefolio.specification.conditions import readable_time
from edgefolio.specification.validation.base import quantity
from edgefolio_operator.kube.objects import Object

#: Staleness in a sample's own windows, if that is longer than the setting: a source that samples once
#: a minute is not stale after a minute. Capped at the last figure.
_BELIEVED_WINDOWS = 3.0
LONGEST_BELIEF_SECONDS = 300.0

_UNREADABLE = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError)
_DURATION_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?)(ms|us|µs|ns|h|m|s)")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """CPU used over the ``window_seconds`` before ``time`` (seconds since the epoch), and memory used at ``time``."""

    cpu_cores: float
    memory_bytes: int
    time: float
    window_seconds: float

    def is_fresh(self, *, now: float, stale_after: float) -> bool:
        """Whether it is recent enough to be used; one from the future shows a wrong clock, and is not."""
        believed = max(stale_after, _BELIEVED_WINDOWS * self.window_seconds)
        return abs(now - self.time) <= min(believed, LONGEST_BELIEF_SECONDS)


@dataclass(frozen=True, kw_only=True)
class PodSample:
    """Usage of a pod, and the working set of its server where that is a container of its own."""

    total: Sample
    server_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The newest samples, and why there are no newer ones (``problem``) if there are none.

    ``nodes`` is ``None`` where nodes may not be asked about; ``asked`` is false before the first answer.
    """

    nodes: Mapping[str, Sample] | None = field(default_factory=dict)
    pods: Mapping[tuple[str, str], PodSample] = field(default_factory=dict)
    problem: str = ""
    asked: bool = False


def node_samples(items: Iterable[Object]) -> dict[str, Sample]:
    """Samples by the node's name, of a NodeMetricsList."""
    found: dict[str, Sample] = {}
    for item in items:
        try:
            name, sample = str(item["metadata"]["name"]), _sample(item, [item["usage"]])
        except _UNREADABLE:
            continue
        if sample is not None:
            found[name] = sample
    return found


def pod_samples(items: Iterable[Object]) -> dict[tuple[str, str], PodSample]:
    """Samples by the pod's namespace and name, of a PodMetricsList."""
    found: dict[tuple[str, str], PodSample] = {}
    for item in items:
        try:
            key = str(item["metadata"]["namespace"]), str(item["metadata"]["name"])
            by_container = {str(entry["name"]): entry["usage"] for entry in item["containers"]}
            total = _sample(item, list(by_container.values()))
        except _UNREADABLE:
            continue
        if total is not None:
            found[key] = PodSample(total=total, server_bytes=_server_bytes(by_container))
    return found


def duration(text: Any) -> float | None:
    """Seconds in a Go duration (``15.034s``, ``1m0s``); ``None`` if it is none."""
    if not isinstance(text, str):
        return None
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)


def _sample(item: Object, usages: list[Object]) -> Sample | None:
    cores = [quantity(usage["cpu"]) for usage in usages]
    memory = [quantity(usage["memory"]) for usage in usages]
    window = duration(item.get("window"))
    taken_at = readable_time(item.get("timestamp"))
    if not usages or None in cores or None in memory or taken_at is None:
        return None
    return Sample(
        cpu_cores=float(sum(value or 0 for value in cores)),
        memory_bytes=int(sum(value or 0 for value in memory)),
        time=taken_at,
        window_seconds=window if window is not None else 0.0,
    )


def _server_bytes(by_container: Mapping[str, Object]) -> int | None:
    """Of the container called triton, or of the only one that is not the agent's."""
    others = [name for name in by_container if name != AGENT_CONTAINER]
    name = TRITON_CONTAINER if TRITON_CONTAINER in others else others[0] if len(others) == 1 else None
    amount = quantity(by_container[name]["memory"]) if name is not None else None
    return None if amount is None else int(amount)
