"""After-cycle hook of the agent in a pod: reports in a thread of its own."""

from __future__ import annotations

import logging
import threading

from edgefolio.decision.types import Reason
from edgefolio_edge.agent.cycle_result import CycleResult
from edgefolio_edge.cluster.orders import Orders
from edgefolio_edge.cluster.status_writer import StatusWriter
from edgefolio_edge.cluster.switch_history import SwitchHistory

logger = logging.getLogger(__name__)


class ReportThread:
    """Hands cycles to a status writer; a hanging link does not block the agent's cycle."""

    def __init__(self, orders: Orders, writer: StatusWriter, history: SwitchHistory) -> None:
        self._orders = orders
        self._history = history
        self._writer = writer
        self._result: CycleResult | None = None
        self._condition = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)
        self._thread.start()

    def after_cycle(self, result: CycleResult) -> None:
        """Take the outcomes now; report the rest, unless a newer cycle comes first."""
        if result.failure is not None:
            self._writer.failed(result.failure)
        if result.switched and self._orders.is_autonomous:
            self._orders.acted()
        elif result.switched and _is_descent(result) and result.observation is not None:
            self._orders.acted(left=result.observation.active_variant)
        self._history.note(result)
        with self._condition:
            self._result = result
            self._condition.notify()

    def stop(self) -> None:
        """Stop after the current report."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._result is not None or self._stopping)
                result, self._result = self._result, None
                if result is None:
                    return
            try:
                self._writer.after_cycle(result)
            except Exception:  # a report that cannot be made must not be the last one
                logger.exception("the report of a cycle could not be made")


def _is_descent(result: CycleResult) -> bool:
    """Whether a switch under orders was for latency: the order in advance alone brings one."""
    return result.decision is not None and result.decision.reason is Reason.LATENCY_VIOLATED
