"""The agent in a pod: ``python -m edgefolio_edge.cluster``; settings come from the environment.

| variable | meaning |
|---|---|
| ``POD_NAME``, ``POD_NAMESPACE`` | its own pod, whose ModelEndpoint it obeys |
| ``EDGEFOLIO_MODELS`` | Triton's model repository, shared with it |
| ``EDGEFOLIO_STATE`` | its own directory: orders, history, manifests |
| ``EDGEFOLIO_TRITON``, ``EDGEFOLIO_TRITON_METRICS`` | addresses of Triton's gRPC service and of its metrics |
| ``EDGEFOLIO_KEY_FILE`` | file with the key of Triton's control, ``name=secret`` |
| ``EDGEFOLIO_MEMORY_LIMIT`` | what Triton may take, in bytes |
| ``EDGEFOLIO_METRICS_PORT`` | port of its own metrics; 0: any free one |
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edgefolio.durable_files import make_folder
from edgefolio.errors import UserError
from edgefolio.repository import Repository
from edgefolio_edge.agent import Agent, Cycle
from edgefolio_edge.agent_metrics import AgentMetrics
from edgefolio_edge.cluster.api import Access, ApiRefused, ApiUnreachable, EndpointApi
from edgefolio_edge.cluster.follower import Follower
from edgefolio_edge.cluster.orders import Order, Orders
from edgefolio_edge.cluster.status import StatusWriter
from edgefolio_edge.hosting import Host
from edgefolio_edge.locking import only_writer_of_directory
from edgefolio_edge.reporting import Reporter
from edgefolio_edge.stopping import stop_on_signals
from edgefolio_edge.store import ModelStore
from edgefolio_edge.syncing import Synchronizer


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
        elif self.writer is not None and event == "refused":
            self.writer.failed(reason="RevisionRefused", message=message, revision=facts.get("revision"))
        elif self.orders is not None and event == "switch" and self.orders.is_alone:
            self.orders.acted()


def run() -> None:
    """Run until a signal. Raises :class:`UserError` for what must be mended."""
    state = Path(_setting("EDGEFOLIO_STATE", "/state"))
    make_folder(state, field="EDGEFOLIO_STATE")
    orders = Orders(state)
    api = EndpointApi(Access.found(), namespace=_setting("POD_NAMESPACE"), name=_setting("POD_NAME"))
    reporter = ReportedEvents(as_json=True)
    reporter.orders = orders
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        stack.enter_context(only_writer_of_directory(state))
        follower = Follower(api, orders, reporter)
        stack.callback(follower.stop)
        follower.start()
        order = _first_order(orders, stop)
        if order is not None:
            _serve(order, orders, api, reporter, state, stop, stack)


def _serve(
    order: Order,
    orders: Orders,
    api: EndpointApi,
    reporter: ReportedEvents,
    state: Path,
    stop: threading.Event,
    stack: contextlib.ExitStack,
) -> None:
    model, uri = order.spec.model_name, order.spec.repository_uri
    store = ModelStore(state, model=model, model_repository=Path(_setting("EDGEFOLIO_MODELS", "/models")))
    synchronizer = Synchronizer(lambda: Repository.open(uri), store, ordered=lambda: orders.revision)
    metrics = AgentMetrics(model=model)
    metrics.serve(int(_setting("EDGEFOLIO_METRICS_PORT", "0")), address="0.0.0.0", field="EDGEFOLIO_METRICS_PORT")
    stack.callback(metrics.close)
    host = _attached(stop, stack, reporter)
    if host is None:
        return

    def written(status: dict[str, Any]) -> bool:
        try:
            api.report(status)
        except (ApiUnreachable, ApiRefused) as error:
            reporter.event("unreported", str(error)[:300])
            return False
        orders.heard()
        return True

    writer = StatusWriter(orders, written, clock=time.time)
    reporter.writer = writer
    background = _Background(writer)
    stack.callback(background.stop)
    limit = os.environ.get("EDGEFOLIO_MEMORY_LIMIT")
    agent = Agent(
        host,
        store,
        synchronizer,
        orders,
        reporter=reporter,
        metrics=metrics,
        state_directory=state,
        memory_limit_bytes=int(limit) if limit else None,
        after_cycle=background.take,
    )
    agent.run(stop)


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


def _attached(stop: threading.Event, stack: contextlib.ExitStack, reporter: Reporter) -> Host | None:
    """The Triton of this pod, once it answers."""
    key = os.environ.get("EDGEFOLIO_KEY_FILE")
    said = False
    while not stop.is_set():
        try:
            return stack.enter_context(
                Host.attached(
                    _setting("EDGEFOLIO_TRITON", "grpc://127.0.0.1:8001"),
                    key_file=Path(key) if key else None,
                    metrics=_setting("EDGEFOLIO_TRITON_METRICS", "127.0.0.1:8002"),
                )
            )
        except UserError as error:
            if not said:
                reporter.event("waiting", error.one_line())
                said = True
            stop.wait(0.5)
    return None


def _setting(name: str, default: str | None = None) -> str:
    value = os.environ.get(name) or default
    if value is None:
        raise UserError("it is not set.", field=name, remedy="Set the variable, as the chart's pod does.")
    return value


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
