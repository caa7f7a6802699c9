"""The links of one worker: who is linked, who is silent, who was refused, and why. Told by the hub, in its thread."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from edgefolio_worker.network.connection import Connection
from edgefolio_worker.protocol.expected import APART
from edgefolio_worker.protocol.frames import Frame
from edgefolio_worker.protocol.handshake import Hello
from edgefolio_worker.records.status_file import PeerStatus

__all__ = ["MOST_MISSED", "HubEvents", "Links"]

#: Answers to pings in a row that may be missing.
MOST_MISSED = 3


class HubEvents(Protocol):
    """Whom a hub tells what happens; all of it in the hub's thread."""

    def linked(self, peer: int, hello: Hello) -> None:
        """A peer is linked."""

    def unlinked(self, peer: int) -> None:
        """A link is over."""

    def received(self, peer: int, frame: Frame) -> None:
        """INPUT, MAPS, RESULT or CANCEL that were due. Raises ProtocolError if they are not right all the same."""

    def peers_are(self, reason: str | None) -> None:
        """Why the peers cannot be asked from now on; ``None`` if all of them can."""

    def pulse(self) -> tuple[int, int]:
        """Milliseconds that the present task takes, or APART; microseconds of the last job's own computing."""

    @property
    def patience_milliseconds(self) -> float:
        """A peer whose oldest task takes longer hangs."""


class Links:
    """The linked connections by rank of the peer."""

    def __init__(self, peers: tuple[int, ...]) -> None:
        self._peers = peers
        self._linked: dict[int, Connection] = {}
        #: Why a peer that is not linked is not; of those that never were: it has not come yet.
        self.reasons: dict[int, str] = {}
        #: Connections that were ended, by reason.
        self.ended: Counter[str] = Counter()
        self._bytes_in: Counter[int] = Counter()
        self._bytes_out: Counter[int] = Counter()

    def of(self, peer: int) -> Connection | None:
        """The link to a peer."""
        return self._linked.get(peer)

    def all(self) -> tuple[Connection, ...]:
        """All links."""
        return tuple(self._linked.values())

    def add(self, peer: int, connection: Connection) -> None:
        """A peer is linked."""
        self._linked[peer] = connection
        self.reasons.pop(peer, None)

    def remove(self, peer: int, connection: Connection, reason: str) -> bool:
        """A connection of a peer is over. Returns whether it was the link."""
        if self._linked.get(peer) is not connection:
            return False
        del self._linked[peer]
        self.reasons[peer] = reason
        self._bytes_in[peer] += connection.received_bytes
        self._bytes_out[peer] += connection.outbox.sent_bytes
        return True

    def problem(self, patience_milliseconds: float) -> str | None:
        """Why the peers cannot be asked; ``None`` if all are linked, answer pings and compute."""
        for peer in self._peers:
            connection = self._linked.get(peer)
            if connection is None:
                return self.reasons.get(peer, "forming")
            if connection.unanswered > MOST_MISSED:
                return "silent"
            if connection.task_milliseconds is None:
                return "forming"
            if connection.task_milliseconds == APART:
                return "apart"
            if connection.task_milliseconds > patience_milliseconds:
                return "hung"
        return None

    def status(self) -> tuple[PeerStatus, ...]:
        """How each peer is."""
        found = []
        for peer in self._peers:
            link = self._linked.get(peer)
            trip = None if link is None else link.round_trip
            found.append(
                PeerStatus(
                    rank=peer,
                    is_linked=link is not None,
                    reason=self.reasons.get(peer, "forming") if link is None else None,
                    round_trip_milliseconds=None if trip is None else 1e3 * trip,
                    compute_milliseconds=None if link is None else link.own_milliseconds,
                    bytes_per_second=None if link is None else link.bytes_per_second,
                    bytes_in=self._bytes_in[peer] + (0 if link is None else link.received_bytes),
                    bytes_out=self._bytes_out[peer] + (0 if link is None else link.outbox.sent_bytes),
                )
            )
        return tuple(found)
