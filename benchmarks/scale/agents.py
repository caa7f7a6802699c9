"""One process that acts as many agents: it follows their ModelEndpoints, obeys, and reports as the real agent does.

What an agent does with the API is the real one's: ``Orders`` takes the orders, ``StatusWriter`` decides when a report
is due and what it says, each agent has a watch on its own object alone, opened anew as often. Pretended is what is
behind it: a Triton with steady traffic whose figures tremble, less than what is worth a report. Connections are kept,
where real agents open a new one for each request: the handshakes of 500 machines would be this one's work.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from benchmarks.scale import settings

from edgefolio.contract.order_reason import OrderReason
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
from edgefolio.kubernetes.access import Access
from edgefolio.manifest import Manifest, Variant
from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio.specification.resource import API_VERSION
from edgefolio_edge.agent.cycle_result import CycleResult, ServedVersions
from edgefolio_edge.cluster.endpoint_client import MANAGER
from edgefolio_edge.cluster.orders import Orders
from edgefolio_edge.cluster.status_writer import StatusWriter
from edgefolio_edge.models.sync_state import Synced
from edgefolio_edge.triton.placement import Placement

CYCLE_SECONDS = 1.0
LOAD_SECONDS = 0.2
#: How far a figure is from its mean at most; a fifth would be news.
TREMBLE = 0.05
REQUESTS_PER_SECOND = 4.0
_WINDOW_SECONDS = 5.0
#: For the connections of requests that were cancelled: aiohttp closes them in the background.
_GOODBYE_SECONDS = 0.25
_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True, kw_only=True)
class Told:
    """An order as it arrived, at this instant of the monotonic clock."""

    at: float
    spec: EndpointSpecification
    generation: int
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A report that the API server has accepted at this instant of the monotonic clock."""

    at: float
    observed_generation: int
    slowdown: float


class SimulatedAgent:
    """One agent; ``told`` and ``reported`` are what the benchmark looks at."""

    def __init__(self, link: Link, *, pod: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.slowdown = 1.0
        self.told: list[Told] = []
        self.reported: list[Reported] = []
        self._link = link
        self._pod = pod
        self._orders = Orders(folder)
        self._writer = StatusWriter(self._orders, self._post, clock=time.time)
        self._state = State()
        self._active: Placement | None = None
        self._outbox: tuple[dict[str, Any], float] | None = None
        self._posted = asyncio.Event()

    async def run(self) -> None:
        """Act until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._cycles())
            tasks.create_task(self._reports())

    @property
    def serves(self) -> bool:
        """Whether it serves what it was told to, and has said so."""
        order = self._orders.order
        return (
            order is not None
            and self._active is not None
            and self._active.variant.name == order.spec.target_variant
            and bool(self.reported)
            and self.reported[-1].observed_generation == order.generation
        )

    async def _follow(self) -> None:
        while True:
            try:
                found = await self._link.get(self._pod)
                self._orders.heard()
                if found is None:
                    await asyncio.sleep(1.0)
                    continue
                self._take(found)
                version = str(found["metadata"]["resourceVersion"])
                while True:
                    order = self._orders.order
                    patience = order.spec.switching.autonomy_after_seconds if order is not None else 30
                    async for changed in self._link.watch(self._pod, version=version, seconds=max(2, patience // 3)):
                        version = str(changed["metadata"]["resourceVersion"])
                        self._orders.heard()
                        self._take(changed)
                    self._orders.heard()
            except _ERRORS as error:
                print(f"{self._pod}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(random.uniform(0.25, 0.5))

    def _take(self, found: dict[str, Any]) -> None:
        generation = int(found["metadata"]["generation"])
        spec = EndpointSpecification.model_validate(found["spec"])
        reason = OrderReason.of(found["metadata"], spec).reason
        if self.told and (self.told[-1].generation, self.told[-1].reason) == (generation, reason):
            return
        self._orders.take(spec, generation=generation, reason=reason)
        self.told.append(Told(at=time.monotonic(), spec=spec, generation=generation, reason=reason))

    async def _cycles(self) -> None:
        await asyncio.sleep(random.uniform(0, CYCLE_SECONDS))
        while True:
            began = time.monotonic()
            await self._cycle()
            await asyncio.sleep(max(0.05, began + CYCLE_SECONDS - time.monotonic()))

    async def _cycle(self) -> None:
        order = self._orders.order
        if order is None or order.spec.revision is None:
            return
        manifest = _bare(Manifest, revision=order.spec.revision.number)
        target = order.spec.target_variant
        if target is not None and (self._active is None or self._active.variant.name != target):
            await asyncio.sleep(LOAD_SECONDS)
            now = time.time()
            self._active = Placement(manifest=manifest, variant=_bare(Variant, name=target))
            recent = (*self._state.recent_switches, now)[-16:]
            self._state = State(last_switch_at=now, recent_switches=recent)
        synced = Synced(manifest=manifest, available=tuple(settings.COMPUTE), complete=True)
        if self._active is None:
            cycle = CycleResult(synced=synced, served=None, observation=None, decision=None, state=self._state)
        else:
            cycle = self._served(synced, self._active, order.spec)
        self._writer.after_cycle(cycle)

    def _served(self, synced: Synced, active: Placement, spec: EndpointSpecification) -> CycleResult:
        name = active.variant.name
        compute = settings.COMPUTE[name] * self.slowdown * random.uniform(1 - TREMBLE, 1 + TREMBLE)
        requests = round(REQUESTS_PER_SECOND * _WINDOW_SECONDS)
        traffic = TrafficWindow(
            seconds=_WINDOW_SECONDS,
            requests=requests,
            failures=0,
            executions=requests,
            mean_compute_milliseconds=compute,
            mean_queue_milliseconds=0.1,
            mean_total_milliseconds=compute + 0.5,
            in_flight=REQUESTS_PER_SECOND * (compute + 0.5) / 1e3,
            age_seconds=0,
        )
        memory = MemoryState(limit_bytes=2**30, working_set_bytes=2**27, node_available_bytes=2**32, age_seconds=0)
        observation = Observation(
            active_variant=name, resident_variants=(name,), server=ServerState.SERVING, traffic=traffic, memory=memory
        )
        asked = spec.objectives.latency_p95_milliseconds
        profile = settings.COMPUTE[name] * self.slowdown * settings.P95_TO_MEAN
        decision = Decision(
            action=Action.HOLD,
            reason=Reason.PINNED,
            target=None,
            message=f"{name} is pinned and serves.",
            objectives_met=asked is None or profile <= asked,
        )
        self._state = State(
            compute_factor=self.slowdown,
            transport_milliseconds=0.4,
            last_switch_at=self._state.last_switch_at,
            recent_switches=self._state.recent_switches,
        )
        served = ServedVersions(ready=(), active=active, name=name)
        return CycleResult(synced=synced, served=served, observation=observation, decision=decision, state=self._state)

    def _post(self, status: dict[str, Any]) -> bool:
        self._outbox = status, self.slowdown
        self._posted.set()
        return True

    async def _reports(self) -> None:
        """Send the newest report; what the API server did not take is tried again."""
        while True:
            await self._posted.wait()
            self._posted.clear()
            assert self._outbox is not None
            status, slowdown = self._outbox
            try:
                await self._link.report(self._pod, status)
            except _ERRORS as error:
                print(f"{self._pod}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                self._posted.set()
                await asyncio.sleep(1.0)
                continue
            self._orders.heard()
            seen = int(status["observedGeneration"])
            self.reported.append(Reported(at=time.monotonic(), observed_generation=seen, slowdown=slowdown))


class Link:
    """What agents ask of the API server, over connections that they share."""

    def __init__(self, access: Access, *, namespace: str) -> None:
        self._access = access
        self._namespace = namespace
        self._collection = f"{access.current().server}/apis/{API_VERSION}/namespaces/{namespace}/modelendpoints"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Link:
        credentials = self._access.current()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=credentials.tls or True, limit=0),
            timeout=aiohttp.ClientTimeout(total=20),
            headers=credentials.headers,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await asyncio.sleep(_GOODBYE_SECONDS)

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connections."""
        assert self._session is not None
        return self._session

    async def running_pods(self, selector: str) -> list[str]:
        """Names of the pods that run and carry the labels of ``selector``."""
        url = f"{self._access.current().server}/api/v1/namespaces/{self._namespace}/pods"
        async with self.session.get(url, params={"labelSelector": selector}, raise_for_status=True) as answer:
            items = (await answer.json())["items"]
        return [pod["metadata"]["name"] for pod in items if pod["status"].get("phase") == "Running"]

    async def get(self, name: str) -> dict[str, Any] | None:
        """The endpoint called ``name``, ``None`` if there is none yet."""
        async with self.session.get(f"{self._collection}/{name}") as answer:
            if answer.status == 404:
                return None
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
            return found

    async def watch(self, name: str, *, version: str, seconds: int) -> AsyncIterator[dict[str, Any]]:
        """The endpoint after each change since ``version``."""
        parameters = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        timeout = aiohttp.ClientTimeout(total=seconds + 20)
        async with self.session.get(
            self._collection, params=parameters, timeout=timeout, raise_for_status=True
        ) as answer:
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise aiohttp.ClientError(str(event["object"].get("message")))
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["object"]

    async def report(self, name: str, status: dict[str, Any]) -> None:
        """Write the endpoint's status by server-side apply."""
        document = {
            "apiVersion": API_VERSION,
            "kind": "ModelEndpoint",
            "metadata": {"name": name, "namespace": self._namespace},
            "status": status,
        }
        async with self.session.patch(
            f"{self._collection}/{name}/status",
            params={"fieldManager": MANAGER, "force": "true"},
            data=json.dumps(document),
            headers={"Content-Type": "application/apply-patch+yaml"},
            raise_for_status=True,
        ) as answer:
            await answer.read()


class Fleet:
    """``count`` agents, each from the moment its pod runs; an async context."""

    def __init__(self, access: Access, *, namespace: str, selector: str, count: int, folder: Path) -> None:
        self.agents: dict[str, SimulatedAgent] = {}
        self._link = Link(access, namespace=namespace)
        self._selector = selector
        self._count = count
        self._folder = folder
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Fleet:
        await self._link.__aenter__()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._link.__aexit__()

    async def wait_for(self, claim: Any, *, seconds: float = settings.GIVE_UP_SECONDS) -> None:
        """Until ``claim(agents)`` holds. Raises TimeoutError, and what ended the agents if something did."""
        end = time.monotonic() + seconds
        while not claim(list(self.agents.values())):
            if self._task is not None and self._task.done():
                self._task.result()
            if time.monotonic() > end:
                raise TimeoutError(f"not so after {seconds:g} s")
            await asyncio.sleep(0.1)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while len(self.agents) < self._count:
                try:
                    pods = await self._link.running_pods(self._selector)
                except _ERRORS as error:
                    print(f"pods: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    pods = []
                for pod in pods:
                    if pod not in self.agents:
                        self.agents[pod] = SimulatedAgent(self._link, pod=pod, folder=self._folder / pod)
                        tasks.create_task(self.agents[pod].run())
                await asyncio.sleep(1.0)


@functools.cache
def _bare(model: Any, **fields: Any) -> Any:
    """A record with the fields alone that a report tells of."""
    return model.model_construct(**fields)
