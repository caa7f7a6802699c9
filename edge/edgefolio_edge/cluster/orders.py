"""What the operator ordered, and how long ago the API server was heard: obey, or decide alone.

While the cluster is heard, the operator's target is a pin: the core goes there and stays. Cut off for
``autonomyAfterSeconds`` the pin falls away, and the same core decides with the last objectives. Back again, an agent
that changed its variant meanwhile reports first and gives the operator time to see that; then the operator's word
counts.
"""

from __future__ import annotations

import json
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
from edgefolio.specification.tolerant import understood
from edgefolio_edge.agent.event_log import Reporter

ORDERS_FILE = "orders.json"
#: So long an agent that acted alone waits, once it is back, for an order that knows of it.
HANDOVER_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """The operator's word: the spec of the endpoint and its generation."""

    spec: EndpointSpecification
    generation: int


class Orders:
    """The newest order, kept on disk; used by the agent's loop and by the thread that follows the API server."""

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
        self._acted_alone: int | None = None
        self._told: tuple[Objectives, Switching] | None = None
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
    def heard_at(self) -> float | None:
        """When the API server answered last, on a monotonic clock; ``None`` if never."""
        return self._heard_at

    @property
    def is_alone(self) -> bool:
        """Whether the agent decides: the API server has not been heard for too long, or has just come back."""
        now, order = self._clock(), self._order
        patience = (order.spec.switching if order is not None else Switching()).autonomy_after_seconds
        silent = now - (self._heard_at if self._heard_at is not None else self._started_at)
        if silent > patience:
            return True
        waiting = self._acted_alone is not None and order is not None and order.generation == self._acted_alone
        return waiting and (self._returned_at is None or now - self._returned_at < HANDOVER_SECONDS)

    @property
    def objectives(self) -> Objectives:
        """What is asked; the target is a pin while the operator decides."""
        order = self._order
        if order is None:
            return Objectives()
        asked = objectives_from_specification(order.spec.objectives)
        if self.is_alone and not order.spec.pinned:
            return asked
        return replace(asked, pinned_variant=order.spec.target_variant)

    @property
    def switching(self) -> Switching:
        """How variants are switched. An order is carried out whatever the policy: the operator has looked at it."""
        order = self._order
        if order is None:
            return Switching()
        return order.spec.switching if self.is_alone else order.spec.switching.model_copy(update={"policy": "Auto"})

    def reread(self, reporter: Reporter) -> bool:
        """Whether what is asked changed since the last call."""
        told = (self.objectives, self.switching)
        if told == self._told:
            return False
        first, self._told = self._told is None, told
        if not first:
            target = told[0].pinned_variant
            reporter.event("orders", "alone" if self.is_alone else f"told to serve {target or 'nothing yet'}")
        return not first

    def heard(self) -> None:
        """The API server answered."""
        with self._lock:
            now = self._clock()
            if self.is_alone and self._returned_at is None:
                self._returned_at = now
            self._heard_at = now
            if not self.is_alone:
                self._acted_alone = self._returned_at = None

    def acted(self) -> None:
        """The agent changed its variant while it was alone."""
        with self._lock:
            order = self._order
            self._acted_alone = order.generation if order is not None else None
            self._returned_at = None

    def take(self, spec: EndpointSpecification, *, generation: int) -> bool:
        """Take an order, unless it is of an operator that was replaced. Returns whether it was taken."""
        with self._lock:
            before = self._order
            if before is not None and spec.epoch < before.spec.epoch:
                return False
            is_new = before is None or before.spec != spec
            if is_new:
                text = spec.model_dump_json(by_alias=True, exclude_none=True)
                write_durably(self._path, text.encode(), field="--state-dir")
            self._order = Order(spec=spec, generation=generation)
        if is_new:
            self._changed()
        return True

    def _read(self) -> Order | None:
        try:
            return Order(spec=understood(EndpointSpecification, json.loads(self._path.read_bytes())), generation=0)
        except (OSError, ValueError):
            return None
