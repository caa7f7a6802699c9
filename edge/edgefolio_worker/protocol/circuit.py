"""The circuit: whether requests may go to the peers, as a state machine that is told what happened and when.

Open, the fallback answers without waiting. Only probe jobs of the worker's own close it again, never a user's request.
"""

from __future__ import annotations

__all__ = ["FIRST_WAIT_SECONDS", "GOOD_PROBES", "LONGEST_WAIT_SECONDS", "MOST_ABANDONED", "Circuit"]

#: Good probe jobs in a row that close it.
GOOD_PROBES = 3
#: Abandoned jobs in a row that open it.
MOST_ABANDONED = 2
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0


class Circuit:
    """The circuit of one worker. Times are seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        #: Why it is open; ``None`` while it is closed, and the peers may be asked.
        self.reason: str | None = "forming"
        self._are_alive = False
        self._abandoned = 0
        self._good = 0
        self._next_wait = FIRST_WAIT_SECONDS
        self._next_probe = float("-inf")

    @property
    def is_closed(self) -> bool:
        """Whether requests go to the peers."""
        return self.reason is None

    def peers_alive(self, now: float) -> None:
        """All peers are linked and answer pings: probe jobs may be tried.

        Peers that come back are not made to wait for what they were slow at before.
        """
        if not self._are_alive:
            self._next_probe = min(self._next_probe, now + FIRST_WAIT_SECONDS)
            self._next_wait = min(self._next_wait, 2 * FIRST_WAIT_SECONDS)
        self._are_alive = True

    def peers_lost(self, reason: str, now: float) -> None:
        """A link closed, or a peer does not answer."""
        self._are_alive = False
        self._open(reason, now)

    def abandoned(self, now: float) -> None:
        """A job was not done in time."""
        self._abandoned += 1
        if self._abandoned >= MOST_ABANDONED:
            self._open("abandoned", now)

    def answered(self) -> None:
        """A job was done in time."""
        self._abandoned = 0

    def may_probe(self, now: float) -> bool:
        """Whether a probe job is due."""
        return self.reason is not None and self._are_alive and now >= self._next_probe

    def probed(self, now: float, *, is_good: bool) -> None:
        """A probe job ended; good is a right answer in time."""
        if self.reason is None or not self._are_alive:
            return
        if not is_good:
            self._good = 0
            self._next_probe = now + self._next_wait
            self._next_wait = min(LONGEST_WAIT_SECONDS, 2 * self._next_wait)
            return
        self._good += 1
        if self._good >= GOOD_PROBES:
            self.reason = None
            self._abandoned = 0

    def _open(self, reason: str, now: float) -> None:
        was_closed = self.reason is None
        self.reason = reason
        self._good = self._abandoned = 0
        if was_closed:
            self._next_probe = now + FIRST_WAIT_SECONDS
            self._next_wait = 2 * FIRST_WAIT_SECONDS
