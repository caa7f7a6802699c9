"""The declared link as costs: a round trip for each wait, and the bytes of the worker that receives most."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Network"]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A link, and how many bytes a number takes on it."""

    bits_per_second: float
    round_trip_milliseconds: float
    element_bytes: int

    def milliseconds(self, elements: float) -> float:
        """How long so many numbers are on the wire."""
        return 1000 * 8 * self.element_bytes * elements / self.bits_per_second
