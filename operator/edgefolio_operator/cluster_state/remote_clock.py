"""Estimator of the difference between a node's clock and ours, from times in what the node sends. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class RemoteClock:
    """Estimate of a node's clock: ``lead`` is its time minus our monotonic clock's.

    A delay makes the lead look smaller, and nothing makes it look larger: so the largest counts. If it falls by more
    than ``tolerance`` in something new, the clock was set back.
    """

    lead: float
    tolerance: float

    def heard(self, said: float, *, monotonic: float, is_new: bool) -> None:
        """Something written at ``said`` has arrived; ``is_new``: it was written just now, as far as can be known."""
        lead = said - monotonic
        if lead > self.lead or (is_new and self.lead - lead > self.tolerance):
            self.lead = lead

    def offset(self, *, monotonic: float, now: float) -> float:
        """How much it is ahead of ``now``, in whole seconds; 0 within the tolerance."""
        found = round(self.lead + monotonic - now)
        return float(found) if abs(found) > self.tolerance else 0.0
