"""The difference between a node's clock and ours, found from what arrives with times of that node. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class RemoteClock:
    """A node's clock by ours that only runs (monotonic): ``lead`` is its time less that.

    What is late on its way seems to be of an earlier time, and nothing is early: the largest lead counts. One that
    falls by more than ``tolerance`` is a clock that was set back, if what came was new.
    """

    lead: float
    tolerance: float

    def heard(self, said: float, *, monotonic: float, is_new: bool) -> None:
        """Something of the time ``said`` has come; ``is_new``: it was written just now, as far as can be known."""
        lead = said - monotonic
        if lead > self.lead or (is_new and self.lead - lead > self.tolerance):
            self.lead = lead

    def offset(self, *, monotonic: float, now: float) -> float:
        """How much it is ahead of ``now``, in whole seconds; 0 within the tolerance."""
        found = round(self.lead + monotonic - now)
        return float(found) if abs(found) > self.tolerance else 0.0
