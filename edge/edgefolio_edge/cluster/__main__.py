"""The agent in a pod: ``python -m edgefolio_edge.cluster``; settings come from the environment (see ``settings``)."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any

from edgefolio.contract.pod import METRICS_PORT_VARIABLE, STATE_VARIABLE
from edgefolio.errors import UserError
from edgefolio.files import make_folder
from edgefolio.repository import Repository
from edgefolio_edge.agent.event_log import Reporter
from edgefolio_edge.agent.loop import Agent, Cycle
from edgefolio_edge.agent.metrics import AgentMetrics
from edgefolio_edge.cluster.api import Access, ApiRefused, ApiUnreachable, EndpointApi
from edgefolio_edge.cluster.endpoint_watcher import Follower
from edgefolio_edge.cluster.orders import Order, Orders
from edgefolio_edge.cluster.settings import Settings
from edgefolio_edge.cluster.status_writer import StatusWriter
from edgefolio_edge.health_files import Health
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.synchronizer import Synchronizer, SyncLimits
from edgefolio_edge.process.directory_lock import only_writer_of_directory
from edgefolio_edge.process.signals import stop_on_signals
from edgefolio_edge.triton.host import Host

#: A new revision is fetched by the endpoints of one wave within so many seconds, not all at once.
JITTER_SECONDS = 5.0


class ReportedEvents(Reporter):
    """Prints events as JSON lines, and hands on what the endpoint's status must tell."""

    writer: StatusWriter | None = None
    orders: Orders | None = None

    def event(self, event: str, message: str = "", **facts: Any) -> None:
        """Say that ``event`` happened."""
        super().event(event, message, **facts)
        revision = self.orders.revision if self.orders is not None else None
        if self.writer is not None and event == "failed":
            self.writer.failed(
                reason="LoadFailed",
                message=message,
                revision=revision[0] if revision is not None else None,
                variant=facts.get("variant"),
            )
        elif self.writer is not None and event == "condemned":
            # No revision is named: a server that is sick says nothing of what it serves.
            self.writer.failed(reason="RestartNeeded", message=message)
        elif self.writer is not None and event == "refused":
            self.writer.failed(reason=facts["reason"], message=message, revision=facts.get("revision"))
        elif self.orders is not None and event == "switch" and self.orders.is_alone:
            self.orders.acted()


def run() -> None:
    """Run until a signal. Raises :class:`UserError` for what must be mended."""
    settings = Settings.of()
    make_folder(settings.state, field=STATE_VARIABLE)
    orders = Orders(settings.state)
    api = EndpointApi(Access.found(), namespace=settings.namespace, name=settings.name)
    reporter = ReportedEvents(as_json=True)
    reporter.orders = orders
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        stack.enter_context(only_writer_of_directory(settings.state))
        follower = Follower(api, orders, reporter)
        stack.callback(follower.stop)
        follower.start()
        order = _first_order(orders, stop)
        if order is not None:
            _serve(order, settings, orders, api, reporter, stop, stack)


def _serve(
    order: Order,
    settings: Settings,
    orders: Orders,
    api: EndpointApi,
    reporter: ReportedEvents,
    stop: threading.Event,
    stack: contextlib.ExitStack,
) -> None:
    """Bring variants to disk, and work with Triton as soon as there is one: it is started when it can serve."""
    model, uri = order.spec.model_name, settings.place_of(order.spec.repository_uri)
    store = ModelStore(settings.state, model=model, threads=settings.threads, model_repository=settings.models)
    limits = SyncLimits(
        storage_bytes=settings.storage_limit_bytes,
        bytes_per_second=settings.bytes_per_second,
        jitter_seconds=JITTER_SECONDS,
    )
    synchronizer = Synchronizer(
        lambda: Repository.open(uri, field="spec.repositoryURI"),
        store,
        ordered=lambda: orders.revision,
        limits=limits,
    )
    metrics = AgentMetrics(model=model)
    metrics.serve(settings.metrics_port, address="0.0.0.0", field=METRICS_PORT_VARIABLE)
    stack.callback(metrics.close)
    host = stack.enter_context(
        Host.awaited(settings.triton, key_file=settings.key_file, metrics=settings.triton_metrics)
    )

    writer = StatusWriter(orders, _Reports(api, orders, reporter).send, clock=time.time)
    reporter.writer = writer
    background = _Background(writer)
    stack.callback(background.stop)
    agent = Agent(
        host,
        store,
        synchronizer,
        orders,
        reporter=reporter,
        metrics=metrics,
        state_directory=settings.state,
        memory_limit_bytes=settings.memory_limit_bytes,
        health=Health(settings.health),
        after_cycle=background.take,
    )
    synchronizer.changed = agent.wake

    def ordered() -> None:
        synchronizer.wake()
        agent.wake()

    orders.changed = ordered
    agent.run(stop)


class _Reports:
    """Sends reports; says once that they do not arrive."""

    def __init__(self, api: EndpointApi, orders: Orders, reporter: Reporter) -> None:
        self._api = api
        self._orders = orders
        self._reporter = reporter
        self._said = ""

    def send(self, status: dict[str, Any]) -> bool:
        """Whether the report arrived."""
        try:
            self._api.report(status)
        except (ApiUnreachable, ApiRefused) as error:
            if str(error) != self._said:
                self._said = str(error)
                self._reporter.event("unreported", self._said[:300])
            return False
        self._said = ""
        self._orders.heard()
        return True


class _Background:
    """Reports in a thread of its own: a link that hangs must not hold up the agent's cycle."""

    def __init__(self, writer: StatusWriter) -> None:
        self._writer = writer
        self._cycle: Cycle | None = None
        self._condition = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)
        self._thread.start()

    def take(self, cycle: Cycle) -> None:
        """Report ``cycle``, unless a newer one comes first."""
        with self._condition:
            self._cycle = cycle
            self._condition.notify()

    def stop(self) -> None:
        """End after the report under way."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._cycle is not None or self._stopping)
                cycle, self._cycle = self._cycle, None
                if cycle is None:
                    return
            self._writer.after_cycle(cycle)


def _first_order(orders: Orders, stop: threading.Event) -> Order | None:
    """Wait for the first order; one on disk will do."""
    while orders.order is None and not stop.wait(0.2):
        pass
    return orders.order


def main() -> int:
    """Run the agent; the exit code."""
    try:
        run()
    except UserError as error:
        print(f"error: {error.one_line()}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
