"""The soak itself: clients on every node, one fault after the other, and what is recorded of it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.soak.connections import Connections
from benchmarks.soak.faults import KINDS
from benchmarks.soak.logs import PodLogs
from benchmarks.soak.memory import Sample, sampled
from benchmarks.soak.report import failures_at_nodes_that_were_up, summary
from benchmarks.soak.turns import TROUBLE, Struck, Turn, strike, turns
from cluster_site import wait_for
from edge_client import Client, Request
from edge_portfolio import MODEL
from edge_revisions import FOLLOWING
from edge_site import SYSTEM, EdgeSite

from edgefolio.repository import Repository

NODES = ("edge-1", "edge-2", "edge-3")
#: Seconds within which a fault must be over, for users as well.
LONGEST_SECONDS = 300.0
#: Requests a second of one client.
RATE = 4.0
#: Clients begin anew this often: what one has recorded is read from its pod's log, which is bounded.
CLIENT_SECONDS = 300.0


class Soak:
    """``only`` restricts the faults to those whose name holds it; ``write`` gets the results so far, after each.

    ``logs`` keeps those of the pods for each fault in which a request failed that should not, or that was not over.
    """

    def __init__(
        self, site: EdgeSite, *, seed: int, only: str, write: Callable[[dict[str, Any]], None], logs: PodLogs
    ) -> None:
        self._site, self._seed, self._write, self._logs = site, seed, write, logs
        self._kinds = [kind for kind in KINDS if only in kind.name]
        self._requests: dict[str, list[Request]] = {node: [] for node in NODES}
        self._clients: dict[str, Client] = {}
        self._clients_began = 0.0
        self._struck: list[Struck] = []
        self._memory: list[Sample] = []
        self._connections = Connections(NODES)
        self._began = 0.0

    def set_up(self) -> None:
        """From an empty cluster to a portfolio that all nodes serve, which follows its bucket from then on."""
        self._site.set_up()
        self._site.serve_on(*NODES)
        self._apply()
        wait_for(self._converged, seconds=LONGEST_SECONDS)
        objective = self._site.objective()
        self._apply(objectives={"latencyP95Milliseconds": objective})
        wait_for(self._converged, seconds=LONGEST_SECONDS)

    def run(self, seconds: float) -> None:
        """Make faults for so long; whatever happens, the results are written."""
        self._began = time.time()
        ended_by: str | None = None
        with self._logs, self._connections:
            try:
                self._look_at_memory()
                self._renew_clients()
                for turn in turns(self._seed, NODES, self._kinds):
                    self._strike(turn)
                    if time.time() > self._began + seconds:
                        break
            except BaseException as error:
                ended_by = f"{type(error).__name__}: {error}"
                raise
            finally:
                self._end_clients()
                self._written(ended_by=ended_by, converged=self._is_converged())

    def _strike(self, turn: Turn) -> None:
        if time.time() > self._clients_began + CLIENT_SECONDS or len(self._clients) < len(NODES):
            self._renew_clients()
        found = strike(turn, self._site, converged=self._converged, longest=LONGEST_SECONDS)
        self._struck.append(found)
        shown = "did not converge" if found.converged_at is None else f"{found.converged_at - found.ended:.1f} s"
        line = f"{found.began - self._began:6.0f} s  {turn.kind.name}, {turn.node}: {shown} {found.trouble}"
        print(line, file=sys.stderr, flush=True)
        if found.converged_at is not None:
            self._look_at_memory()
        failed = failures_at_nodes_that_were_up(self._sent(), self._struck, self._connections.led_to)
        if found.converged_at is None or any(request.due >= found.began for _, request in failed):
            self._keep_logs(found)
        self._written(ended_by="it still runs", converged=found.converged_at is not None)

    def _keep_logs(self, found: Struck) -> None:
        seen = "the cluster does not answer"
        with contextlib.suppress(*TROUBLE):
            seen = self._site.kubernetes.kubectl("get", "mpf,mep,pods,events", "-o", "wide")
        print(seen, file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):
            name = f"{found.began - self._began:05.0f} {found.kind.name} {found.node}"
            self._logs.keep(name, since=found.began, note=seen)

    def _renew_clients(self) -> None:
        self._end_clients()
        for node in NODES:
            # One that finds nobody to ask is started before the next fault.
            with contextlib.suppress(*TROUBLE):
                self._clients[node] = self._site.start_client(node, rate=RATE, seconds=4 * CLIENT_SECONDS)
        self._clients_began = time.time()

    def _end_clients(self) -> None:
        for node, client in self._clients.items():
            with contextlib.suppress(*TROUBLE):
                wait_for(lambda client=client: client.requests(), seconds=60)
            with contextlib.suppress(*TROUBLE):
                self._requests[node] += client.stop()
        self._clients.clear()

    def _look_at_memory(self) -> None:
        with contextlib.suppress(*TROUBLE):
            self._memory += sampled(self._site, NODES, at=time.time())

    def _sent(self) -> dict[str, list[Request]]:
        """All requests so far, by the node of their client."""
        requests = {node: list(found) for node, found in self._requests.items()}
        for node, client in self._clients.items():
            requests[node] += client.requests()
        return requests

    def _written(self, *, ended_by: str | None, converged: bool) -> None:
        seconds = time.time() - self._began
        found = summary(
            self._sent(),
            self._struck,
            self._memory,
            began=self._began,
            seconds=seconds,
            led_to=self._connections.led_to,
        )
        self._write({**found, "endedBy": ended_by, "convergedAtEnd": converged})

    def _apply(self, **changes: Any) -> None:
        self._site.apply(**FOLLOWING, **changes)

    def _is_converged(self) -> bool:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(*TROUBLE):
                if self._converged():
                    return True
            time.sleep(1)
        return False

    def _converged(self) -> bool:
        """Ready; each node serves the newest revision's most accurate variant; all pods are ready and routed to."""
        site = self._site
        if site.condition("Ready")[0] != "True":
            return False
        wanted = (site.most_accurate, self._published())
        served = {node: entry.get("status") or {} for node, entry in site.endpoints().items()}
        return (
            set(served) == set(NODES)
            and all((entry.get("activeVariant"), entry.get("activeRevision")) == wanted for entry in served.values())
            and site.routed(*NODES)
            and all(_is_ready(site.pod_on(node)) for node in NODES)
            and all(_is_ready(pod) for pod in self._operators())
        )

    def _published(self) -> int:
        pointer = Repository.open(str(self._site.bucket / "site")).current(MODEL)
        assert pointer is not None
        return pointer.revision

    def _operators(self) -> list[dict[str, Any]]:
        system = EdgeSite(self._site.kubernetes, self._site.machine.run, namespace=SYSTEM)
        return system.pods("app.kubernetes.io/component=operator")


def _is_ready(pod: dict[str, Any]) -> bool:
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in pod["status"].get("conditions", ()))
