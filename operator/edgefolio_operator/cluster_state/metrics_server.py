"""Poller for ``metrics.k8s.io``: the newest usage of nodes and of our pods; metrics-server knows no watches.

Where a request fails, the samples before it stay, with their times.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace

import aiohttp

from edgefolio_operator.cluster_state.remote_clock import RemoteClock
from edgefolio_operator.cluster_state.resource_usage import PodSample, Sample, Usage, node_samples, pod_samples
from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.labels import ENDPOINT_LABEL

logger = logging.getLogger(__name__)

METRICS_API = "metrics.k8s.io/v1beta1"
#: A sample may be this old when it is first seen: a poll, metrics-server's own, and its window.
_OLDEST_NEW_SECONDS = 90.0


@dataclass(frozen=True, kw_only=True)
class _Source:
    clock: RemoteClock
    said: float


class SampleClocks:
    """The clocks of the nodes whose kubelets took the samples; their times are turned into ours."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._sources: dict[Hashable, _Source] = {}

    def nodes(self, samples: Mapping[str, Sample]) -> dict[str, Sample]:
        """Samples of nodes; clocks of those that are gone are forgotten."""
        self._sources = {
            key: entry for key, entry in self._sources.items() if not isinstance(key, str) or key in samples
        }
        return {name: self._on_our_clock(name, sample) for name, sample in samples.items()}

    def pods(self, samples: Mapping[tuple[str, str], PodSample]) -> dict[tuple[str, str], PodSample]:
        """Samples of pods; clocks of those that are gone are forgotten."""
        found = {key: replace(sample, total=self._on_our_clock(key, sample.total)) for key, sample in samples.items()}
        self._sources = {key: source for key, source in self._sources.items() if isinstance(key, str) or key in samples}
        return found

    def _on_our_clock(self, key: Hashable, sample: Sample) -> Sample:
        monotonic, now = self._monotonic(), self._clock()
        before = self._sources.get(key)
        clock = RemoteClock(lead=now - monotonic, tolerance=_OLDEST_NEW_SECONDS) if before is None else before.clock
        # An old one at first sight may be of a metrics-server that hangs.
        clock.heard(sample.time, monotonic=monotonic, is_new=before is not None and sample.time != before.said)
        self._sources[key] = _Source(clock=clock, said=sample.time)
        offset = clock.offset(monotonic=monotonic, now=now)
        # Too late rather than too early: what was loaded since the sample was taken must not count as seen.
        return replace(sample, time=sample.time - offset - (sample.window_seconds if offset else 0.0))


class MetricsPoller:
    """Keeps ``usage`` up to date: of pods in ``namespaces`` (none: everywhere), of nodes where those may be read."""

    def __init__(
        self,
        api: Api,
        *,
        namespaces: tuple[str, ...],
        reads_nodes: bool,
        poll_seconds: float,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._namespaces = namespaces
        self._poll_seconds = poll_seconds
        self._changed = changed
        self.usage = Usage(nodes={} if reads_nodes else None)
        self._clocks = SampleClocks(clock=clock)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                await self.poll()
            except Exception:
                logger.exception("the answer of metrics.k8s.io cannot be used")
            await asyncio.sleep(self._poll_seconds * random.uniform(0.9, 1.1))

    async def poll(self) -> None:
        """Poll once."""
        before, problem = self.usage, ""
        nodes, pods = before.nodes, before.pods
        try:
            if nodes is not None:
                nodes = self._clocks.nodes(node_samples(await self._items("nodes")))
            pods = self._clocks.pods(
                pod_samples(
                    [item for space in self._namespaces or ("",) for item in await self._items("pods", namespace=space)]
                )
            )
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            problem = _problem(error)
        self.usage = replace(before, nodes=nodes, pods=pods, problem=problem, asked=True)
        if problem and problem != before.problem:
            logger.warning("%s", problem)
        elif not problem and before.problem:
            logger.info("metrics.k8s.io answers again")
        self._changed()

    async def _items(self, plural: str, *, namespace: str = "") -> list[Object]:
        selector = ENDPOINT_LABEL if plural == "pods" else ""
        answer = await self._api.get(collection(METRICS_API, plural, namespace), selector=selector)
        items = answer.get("items")
        return items if isinstance(items, list) else []


def _problem(error: Exception) -> str:
    """Why there are no samples; the same text for the same reason."""
    if isinstance(error, ApiError) and error.status == 404:
        return "The cluster does not serve metrics.k8s.io: install metrics-server."
    if isinstance(error, ApiError) and error.status == 403:
        return "The operator may not read metrics.k8s.io: its role needs get and list of nodes and pods there."
    if isinstance(error, ApiError):
        return f"metrics.k8s.io answers with the error {error.status}: look after metrics-server."
    return f"metrics.k8s.io does not answer ({type(error).__name__}): look after metrics-server."
