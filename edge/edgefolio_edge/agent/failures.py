"""Memory of failed switches: what served before, which variants failed, and when the next switch may be tried."""

from __future__ import annotations

import time

from edgefolio.manifest import Manifest
from edgefolio_edge.triton.placement import Placement

#: Longest pause between switches while a resource of the machine is short; and while nothing serves.
LONGEST_SHORTAGE_SECONDS = 60.0
SHORTAGE_SECONDS_WITHOUT_SERVICE = 5.0


class SwitchFailures:
    """Failures since the last success; it decides nothing."""

    def __init__(self) -> None:
        self._served_before: Placement | None = None
        self._failed: set[str] = set()
        self._shortages = 0
        self._not_before = float("-inf")

    @property
    def served_before(self) -> Placement | None:
        """What served when a switch failed: it comes back first if the server had to be restarted for it."""
        return self._served_before

    def may_switch(self) -> bool:
        """Whether the pause after a shortage is over."""
        return time.monotonic() >= self._not_before

    def begin_revision(self) -> None:
        """Failures of the old revision say nothing about the new one."""
        self._failed = set()

    def succeeded(self) -> None:
        """Note a switch that succeeded."""
        self._served_before = None
        self._shortages = 0

    def verified(self, active: Placement, *, of: Manifest | None) -> None:
        """Note that ``active`` answers: if it is of revision ``of``, not all of its variants fail."""
        if of is not None and active.manifest.revision == of.revision:
            self._failed = set()

    def failed_beside(self, active: Placement | None) -> None:
        """Note that a switch failed while ``active`` served."""
        self._served_before = active or self._served_before

    def take_served_before(self) -> Placement | None:
        """What served before, once."""
        before, self._served_before = self._served_before, None
        return before

    def short(self, *, serves: bool) -> bool:
        """Pause after a shortage, longer each time. Returns whether it is the first one."""
        longest = LONGEST_SHORTAGE_SECONDS if serves else SHORTAGE_SECONDS_WITHOUT_SERVICE
        self._not_before = time.monotonic() + min(longest, 2.0**self._shortages)
        self._shortages = min(self._shortages + 1, 10)
        return self._shortages == 1

    def have_all_failed(self, target: Placement) -> bool:
        """Note that ``target`` failed. Returns whether each variant of its revision has."""
        self._failed.add(target.variant.name)
        return self._failed >= {variant.name for variant in target.manifest.single_node}
