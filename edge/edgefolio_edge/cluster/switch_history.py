"""The last changes of the variant that serves, kept on disk: Events are gone after an hour."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from edgefolio.decision.types import Reason
from edgefolio.errors import UserError
from edgefolio.files import write_durably
from edgefolio.specification.conditions import time_text
from edgefolio.specification.endpoint import SwitchReport
from edgefolio_edge import reasons
from edgefolio_edge.agent.cycle_result import CycleResult
from edgefolio_edge.cluster.orders import Orders
from edgefolio_edge.process.stored_json import damaged, read_object, remove_partial_files

HISTORY_FILE = "switches.json"
#: As many as the status of a ModelEndpoint holds.
REMEMBERED = 16

_REPORTS = TypeAdapter(tuple[SwitchReport, ...])


class SwitchHistory:
    """Notes each change of the variant that serves. A variant that is brought back after a restart is none."""

    def __init__(self, directory: Path, orders: Orders, *, clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives the seconds since the epoch that people read."""
        self._path = directory / HISTORY_FILE
        self._orders = orders
        self._clock = clock
        self._switches = self._read()

    @property
    def switches(self) -> tuple[SwitchReport, ...]:
        """The last changes, oldest first."""
        return self._switches

    def note(self, cycle: CycleResult) -> None:
        """Add what changed in ``cycle``, if anything did."""
        active = cycle.served.active if cycle.served is not None else None
        if active is None:
            return
        served = active.variant.name, active.manifest.revision
        last = self._switches[-1] if self._switches else None
        if last is not None and served == (last.to_variant, last.to_revision):
            return
        alone = self._orders.is_autonomous
        switch = SwitchReport(
            time=time_text(self._clock()),
            from_variant=None if last is None else last.to_variant,
            from_revision=None if last is None else last.to_revision,
            to_variant=served[0],
            to_revision=served[1],
            reason=self._reason(cycle, alone=alone),
            decided_by="Agent" if alone else "Operator",
        )
        self._switches = (*self._switches, switch)[-REMEMBERED:]
        document = {"switches": [each.model_dump(mode="json", by_alias=True) for each in self._switches]}
        with contextlib.suppress(UserError):  # a full disk; it is told in the status all the same
            write_durably(self._path, json.dumps(document).encode(), field="--state-dir")

    def _reason(self, cycle: CycleResult, *, alone: bool) -> str:
        """The agent's reason, or where it only obeys, that of the order."""
        order, decision = self._orders.order, cycle.decision
        if decision is not None and (alone or decision.reason is not Reason.PINNED):
            return decision.reason.value
        return order.reason if order is not None and order.reason is not None else reasons.ORDERED

    def _read(self) -> tuple[SwitchReport, ...]:
        remove_partial_files(self._path.parent, HISTORY_FILE)
        document: dict[str, Any] | None = read_object(self._path)
        if document is None:
            return ()
        try:
            return _REPORTS.validate_python(document.get("switches"))[-REMEMBERED:]
        except (ValueError, TypeError, RecursionError) as error:
            damaged(self._path, error)
            return ()
