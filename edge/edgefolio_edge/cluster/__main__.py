"""The agent in a pod: ``python -m edgefolio_edge.cluster``; settings come from the environment (see ``settings``)."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from edgefolio.contract.log_format import log_as_json
from edgefolio.contract.pod import METRICS_PORT_VARIABLE, STATE_VARIABLE
from edgefolio.errors import UserError
from edgefolio.files import make_folder
from edgefolio.kubernetes.access import Access
from edgefolio.kubernetes.sync_client import ApiRefused, ApiUnreachable, SyncClient
from edgefolio.processor import this_processor
from edgefolio.repository import Repository
from edgefolio_edge.agent.loop import Agent
from edgefolio_edge.agent.options import AgentOptions, AgentOutputs
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.agent.records.metrics import AgentMetrics
from edgefolio_edge.cluster.credentials import MountedCredentials
from edgefolio_edge.cluster.endpoint_client import EndpointClient
from edgefolio_edge.cluster.endpoint_watcher import EndpointWatcher
from edgefolio_edge.cluster.orders import Order, Orders
from edgefolio_edge.cluster.report_thread import ReportThread
from edgefolio_edge.cluster.settings import Settings
from edgefolio_edge.cluster.status_writer import StatusWriter
from edgefolio_edge.cluster.switch_history import SwitchHistory
from edgefolio_edge.health_files import Health
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.node_profiles import NodeProfiles
from edgefolio_edge.models.sync_state import SyncLimits
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.process.directory_lock import only_writer_of_directory
from edgefolio_edge.process.open_files import raise_open_files_limit
from edgefolio_edge.process.signals import stop_on_signals
from edgefolio_edge.triton.host import Host

#: Spreads the fetches of a new revision by the endpoints of one wave.
JITTER_SECONDS = 5.0


def run() -> None:
    """Run until a signal. Raises :class:`UserError` for a user's mistake."""
    raise_open_files_limit()
    settings = Settings.of()
    make_folder(settings.state, field=STATE_VARIABLE)
    agent_woken, synchronizer_woken = threading.Event(), threading.Event()

    def ordered() -> None:
        synchronizer_woken.set()
        agent_woken.set()

    reporter = Reporter(as_json=True)
    pod = _Pod(
        settings=settings,
        orders=Orders(settings.state, changed=ordered),
        api=EndpointClient(SyncClient(Access.found()), namespace=settings.namespace, name=settings.name),
        reporter=reporter,
        agent_woken=agent_woken,
        synchronizer_woken=synchronizer_woken,
    )
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        stack.enter_context(only_writer_of_directory(settings.state))
        watcher = EndpointWatcher(pod.api, pod.orders, reporter)
        stack.callback(watcher.stop)
        watcher.start()
        order = _first_order(pod.orders, stop)
        if order is not None:
            pod.serve(order, stop)


@dataclass(frozen=True, kw_only=True)
class _Pod:
    """The agent's parts that exist before its first order. The events begin the next cycle at once."""

    settings: Settings
    orders: Orders
    api: EndpointClient
    reporter: Reporter
    agent_woken: threading.Event
    synchronizer_woken: threading.Event

    def serve(self, order: Order, stop: threading.Event) -> None:
        """Fetch variants, and control Triton once it runs: it starts when a variant is on disk."""
        settings, orders = self.settings, self.orders
        model, uri = order.spec.model_name, settings.place_of(order.spec.repository_uri)
        credentials = MountedCredentials(settings.credentials)
        store = ModelStore(
            settings.state,
            model=model,
            threads=settings.threads,
            model_repository=settings.models,
            shared_memory_bytes=settings.shared_memory_bytes,
        )

        def opened() -> Repository:
            credentials.take()
            return Repository.open(uri, field="spec.repositoryURI")

        synchronizer = Synchronizer(
            opened,
            store,
            ordered=lambda: orders.revision,
            limits=SyncLimits(
                storage_bytes=settings.storage_limit_bytes,
                bytes_per_second=settings.bytes_per_second,
                jitter_seconds=JITTER_SECONDS,
            ),
            node_profiles=NodeProfiles(store.manifests.directory, this_processor(), ordered=lambda: orders.profile),
            woken=self.synchronizer_woken,
            changed=self.agent_woken.set,
        )
        metrics = AgentMetrics(model=model)
        with contextlib.ExitStack() as stack:
            metrics.serve(settings.metrics_port, address="0.0.0.0", field=METRICS_PORT_VARIABLE)
            stack.callback(metrics.close)
            host = stack.enter_context(
                Host.awaited(settings.triton, key_file=settings.key_file, metrics=settings.triton_metrics)
            )
            history = SwitchHistory(settings.state, orders)
            writer = StatusWriter(orders, _Reports(self).send, clock=time.time, switches=lambda: history.switches)
            reports = ReportThread(orders, writer, history)
            stack.callback(reports.stop)
            agent = Agent(
                host,
                store,
                synchronizer,
                orders,
                options=AgentOptions(state_directory=settings.state, memory_limit_bytes=settings.memory_limit_bytes),
                outputs=AgentOutputs(
                    reporter=self.reporter,
                    metrics=metrics,
                    health=Health(settings.health),
                    after_cycle=reports.after_cycle,
                ),
                woken=self.agent_woken,
            )
            agent.run(stop)


class _Reports:
    """Sends reports; logs a failure once."""

    def __init__(self, pod: _Pod) -> None:
        self._pod = pod
        self._logged = ""

    def send(self, status: dict[str, Any]) -> bool:
        """Whether the report arrived."""
        try:
            self._pod.api.report(status)
        except (ApiUnreachable, ApiRefused) as error:
            if str(error) != self._logged:
                self._logged = str(error)
                self._pod.reporter.event("unreported", self._logged[:300])
            return False
        self._logged = ""
        return True


def _first_order(orders: Orders, stop: threading.Event) -> Order | None:
    """Wait for the first order; one on disk will do."""
    while orders.order is None and not stop.wait(0.2):
        pass
    return orders.order


def main() -> int:
    """Run the agent; return the exit code."""
    log_as_json(level=logging.WARNING)
    try:
        run()
    except UserError as error:
        print(f"error: {error.one_line()}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
