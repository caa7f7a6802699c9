"""Watch thread of the agent's own ModelEndpoint: every change is an order."""

from __future__ import annotations

import threading

from pydantic import ValidationError

from edgefolio.contract.order_reason import OrderReason
from edgefolio.errors import UserError
from edgefolio.kubernetes.backoff import Backoff
from edgefolio.kubernetes.sync_client import ApiRefused, ApiUnreachable, Object
from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio.specification.validation.tolerant import understood
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.cluster.endpoint_client import EndpointClient
from edgefolio_edge.cluster.orders import Orders

_LONGEST_PAUSE_SECONDS = 15.0


class EndpointWatcher:
    """Keeps :class:`Orders` up to date, and notes when the API server lets orders be heard.

    One that refuses (401 and 403 after a lost token or role, 503 of a proxy before it) gives no orders: an agent that
    hears nothing else is cut off.
    """

    def __init__(self, client: EndpointClient, orders: Orders, reporter: Reporter) -> None:
        self._client = client
        self._orders = orders
        self._reporter = reporter
        self._backoff = Backoff(longest=_LONGEST_PAUSE_SECONDS)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="orders", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. A watch under way ends by itself."""
        self._stopping.set()

    def _run(self) -> None:
        logged = ""
        while not self._stopping.is_set():
            self._backoff.begin()
            failure = ""
            try:
                self._get_and_watch()
            except ApiRefused as error:
                if error.status != 410:  # resourceVersion too old: start from a new get
                    failure = str(error)
            except ApiUnreachable as error:
                failure = str(error)
            except UserError as error:  # the order cannot be written to disk; the last one stands
                self._reporter.event("error", error.one_line())
                self._stopping.wait(_LONGEST_PAUSE_SECONDS)
            except Exception as error:  # an answer that is none: the thread must go on
                failure = f"The API server's answer is not understood: {type(error).__name__}: {error}"
            if failure and failure != logged:
                self._reporter.event("unheard", failure[:300])
            logged = failure
            self._stopping.wait(self._backoff.next_pause(is_failure=bool(failure)))

    def _get_and_watch(self) -> None:
        """Take the current order and then its changes, until a watch fails or ends early."""
        found = self._client.get()
        self._orders.heard()
        if found is None:
            self._stopping.wait(1.0)
            return
        self._take(found)
        version = str(found["metadata"]["resourceVersion"])
        while not self._stopping.is_set():
            order = self._orders.order
            # Short enough to notice a cut link before the agent becomes autonomous.
            patience = order.spec.switching.autonomy_after_seconds if order is not None else 30
            self._backoff.begin()
            for changed in self._client.watch(version=version, seconds=max(2, patience // 3)):
                version = str(changed["metadata"]["resourceVersion"])
                self._orders.heard()
                self._take(changed)
            self._orders.heard()
            self._stopping.wait(self._backoff.next_pause(is_failure=False))

    def _take(self, found: Object) -> None:
        try:
            spec = understood(EndpointSpecification, found["spec"])
        except ValidationError as error:
            self._reporter.event("misunderstood", f"The order is not understood, the last one stands: {error}"[:500])
            return
        metadata = found["metadata"]
        reason = OrderReason.of(metadata, spec).reason
        if not self._orders.take(spec, generation=int(metadata.get("generation", 0)), reason=reason):
            self._reporter.event("ignored", "The order is of an operator that was replaced.")
