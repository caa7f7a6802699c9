"""Orders of the operator, and the switch to autonomy while the API server does not answer.

While the API server answers, the operator's target is a pin: the core goes there and stays, unless the order in advance
(``descendAtPercent``) takes it down to the standby. Cut off for ``autonomyAfterSeconds`` the pin is dropped, and the
same core decides with the last objectives. Connected again, or down as ordered in advance, an agent that changed its
variant reports first and gives the operator time to see that; then orders count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgefolio.decision import objectives_from_specification
from edgefolio.decision.types import Objectives
from edgefolio.files import write_durably
from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio.specification.serving import Switching
from edgefolio.specification.validation.tolerant import understood
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.models.node_profiles import OrderedProfile
from edgefolio_edge.process.stored_json import damaged, read_object, remove_partial_files

ORDERS_FILE = "orders.json"
#: Hand-over: a reconnected agent that acted autonomously waits this long for an order that reflects it. The operator
#: may have been cut off as well: its informers try again after at most 30 s, its lease is taken after 15 s.
HANDOVER_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """An order: the spec of the endpoint and its generation; ``reason`` is the operator's for what it asks for."""

    spec: EndpointSpecification
    generation: int
    reason: str | None = None

    @property
    def asked(self) -> tuple[object, ...]:
        """What is to serve. The rest of an order (reasons, figures, objectives) says nothing of what the agent did."""
        return self.spec.revision, self.spec.target_variant, self.spec.pinned


class Orders:
    """The newest order, kept on disk; used by the agent's loop and by the thread that watches the API server."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``changed`` is called after a new order was taken, in the thread that took it."""
        self._path = directory / ORDERS_FILE
        self._clock = clock
        self._lock = threading.Lock()
        self._order = self._read()
        self._heard_at: float | None = None
        self._started_at = clock()
        self._returned_at: float | None = None
        self._acted_under: tuple[object, ...] | None = None
        self._descended = False
        self._last_read: tuple[Objectives, Switching] | None = None
        self._changed = changed

    @property
    def order(self) -> Order | None:
        """The newest order; ``None`` before the first."""
        return self._order

    @property
    def revision(self) -> tuple[int, str] | None:
        """Number and manifest digest of the revision to serve."""
        order = self._order
        if order is None or order.spec.revision is None:
            return None
        return order.spec.revision.number, order.spec.revision.manifest_digest

    @property
    def profile(self) -> OrderedProfile | None:
        """The profile to predict with for the ordered revision; ``None`` before the first order."""
        order = self._order
        if order is None or order.spec.revision is None:
            return None
        return OrderedProfile(manifest_sha256=order.spec.revision.manifest_digest, order=order.spec.profile)

    @property
    def heard_at(self) -> float | None:
        """When the API server last answered, on a monotonic clock; ``None`` if never."""
        return self._heard_at

    @property
    def is_autonomous(self) -> bool:
        """Whether the agent decides: the API server has been silent for too long, or the hand-over is under way."""
        now, order = self._clock(), self._order
        patience = (order.spec.switching if order is not None else Switching()).autonomy_after_seconds
        silent = now - (self._heard_at if self._heard_at is not None else self._started_at)
        if silent > patience:
            return True
        waiting = self._acted_under is not None and order is not None and order.asked == self._acted_under
        return waiting and (self._returned_at is None or now - self._returned_at < HANDOVER_SECONDS)

    @property
    def has_descended(self) -> bool:
        """Whether it decides because it went down as ordered in advance, and nothing was ordered since."""
        return self._descended and self._acted_under is not None

    @property
    def objectives(self) -> Objectives:
        """The current objectives; the target is a pin while the operator decides."""
        order = self._order
        if order is None:
            return Objectives()
        asked = objectives_from_specification(order.spec.objectives)
        if self.is_autonomous and not order.spec.pinned:
            return asked
        percent = order.spec.descend_at_percent
        return replace(
            asked,
            pinned_variant=order.spec.target_variant,
            pin_is_order=not order.spec.pinned,
            descend_at_percent=None if percent is None or order.spec.pinned else float(percent),
        )

    @property
    def switching(self) -> Switching:
        """The current switching rules. An order is carried out whatever the policy: the operator has applied it."""
        order = self._order
        if order is None:
            return Switching()
        return (
            order.spec.switching if self.is_autonomous else order.spec.switching.model_copy(update={"policy": "Auto"})
        )

    @property
    def is_changed(self) -> bool:
        """``False``: a new order wakes the agent itself."""
        return False

    def reread(self, reporter: Reporter) -> bool:
        """Whether objectives or switching rules changed since the last call."""
        current = (self.objectives, self.switching)
        if current == self._last_read:
            return False
        first, self._last_read = self._last_read is None, current
        if not first:
            target = current[0].pinned_variant
            reporter.event("orders", "alone" if self.is_autonomous else f"told to serve {target or 'nothing yet'}")
        return not first

    def heard(self) -> None:
        """Note that the API server answered as orders could be heard."""
        with self._lock:
            now = self._clock()
            if self.is_autonomous and self._returned_at is None:
                self._returned_at = now
            self._heard_at = now
            if not self.is_autonomous:
                self._acted_under = self._returned_at = None

    def acted(self, *, left: str | None = None) -> None:
        """Note that the agent changed its variant autonomously, or as ordered in advance.

        ``left`` is the variant that it left as ordered: if another one is ordered since, that order counts.
        """
        with self._lock:
            order = self._order
            if left is not None and (order is None or order.spec.target_variant != left):
                return
            self._descended = left is not None
            self._acted_under = order.asked if order is not None else None
            self._returned_at = None

    def take(self, spec: EndpointSpecification, *, generation: int, reason: str | None = None) -> bool:
        """Take an order, unless a replaced operator gave it (lower epoch). Returns whether it was taken.

        An order that asks for the same keeps its first ``reason``: later ones say why nothing changes.
        """
        with self._lock:
            before = self._order
            if before is not None and spec.epoch < before.spec.epoch:
                return False
            is_new = before is None or before.spec != spec
            if is_new:
                text = spec.model_dump_json(by_alias=True, exclude_none=True)
                write_durably(self._path, text.encode(), field="--state-dir")
            order = Order(spec=spec, generation=generation, reason=reason)
            if before is not None and before.reason is not None and before.asked == order.asked:
                order = replace(order, reason=before.reason)
            self._order = order
        if is_new:
            self._changed()
        return True

    def _read(self) -> Order | None:
        remove_partial_files(self._path.parent, ORDERS_FILE)
        document = read_object(self._path)
        if document is None:
            return None
        try:
            return Order(spec=understood(EndpointSpecification, document), generation=0)
        except (ValueError, TypeError, RecursionError) as error:
            damaged(self._path, error)
            return None
