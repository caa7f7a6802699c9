"""Follow the agent's own ModelEndpoint in a thread: every change is an order."""

from __future__ import annotations

import random
import threading
from typing import Any

from pydantic import ValidationError

from edgefolio.errors import UserError
from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio.specification.tolerant import understood
from edgefolio_edge.agent.event_log import Reporter
from edgefolio_edge.cluster.api import ApiRefused, ApiUnreachable, EndpointApi
from edgefolio_edge.cluster.orders import Orders

_LONGEST_PAUSE_SECONDS = 15.0


class Follower:
    """Keeps :class:`Orders` up to date, and notes when the API server was heard."""

    def __init__(self, api: EndpointApi, orders: Orders, reporter: Reporter) -> None:
        self._api = api
        self._orders = orders
        self._reporter = reporter
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="orders", daemon=True)

    def start(self) -> None:
        """Follow from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no longer. A watch under way is left to end by itself."""
        self._stopping.set()

    def _run(self) -> None:
        pause, said = 0.5, ""
        while not self._stopping.is_set():
            try:
                self._follow()
                pause, said = 0.5, ""
            except (ApiUnreachable, ApiRefused) as error:
                if isinstance(error, ApiRefused):
                    self._orders.heard()
                    if error.status == 410:  # the version is too old to go on from: begin anew
                        continue
                if str(error) != said:
                    said = str(error)
                    self._reporter.event("unheard", said[:300])
                self._stopping.wait(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            except UserError as error:  # the order cannot be kept on disk; the last one stands
                self._reporter.event("error", error.one_line())
                self._stopping.wait(_LONGEST_PAUSE_SECONDS)

    def _follow(self) -> None:
        """Take the order as it is and then its changes, for as long as the server answers in time."""
        found = self._api.get()
        self._orders.heard()
        if found is None:
            self._stopping.wait(1.0)
            return
        self._take(found)
        version = str(found["metadata"]["resourceVersion"])
        while not self._stopping.is_set():
            order = self._orders.order
            # Often enough that a cut link is noticed within the time after which the agent decides alone.
            patience = order.spec.switching.autonomy_after_seconds if order is not None else 30
            for changed in self._api.watch(version=version, seconds=max(2, patience // 3)):
                version = str(changed["metadata"]["resourceVersion"])
                self._orders.heard()
                self._take(changed)
            self._orders.heard()

    def _take(self, found: dict[str, Any]) -> None:
        try:
            spec = understood(EndpointSpecification, found["spec"])
        except ValidationError as error:
            self._reporter.event("misunderstood", f"The order is not understood, the last one stands: {error}"[:500])
            return
        if not self._orders.take(spec, generation=int(found["metadata"].get("generation", 0))):
            self._reporter.event("ignored", "The order is of an operator that was replaced.")
