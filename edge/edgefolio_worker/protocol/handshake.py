"""The handshake: who a worker says it is, and why it is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from edgefolio_worker.protocol.frames import ProtocolError

__all__ = ["MOST_HELLO_BYTES", "PROTOCOL", "Hello", "Refusal", "refusal_of"]

PROTOCOL = 1
MOST_HELLO_BYTES = 4096


class Refusal(IntEnum):
    """Why a worker is refused: the reason in a REFUSE frame."""

    PROTOCOL = 1
    MODEL = 2
    PLAN = 3
    SET = 4
    RANK = 5
    WORKERS = 6
    WIRE = 7


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What a worker is: the payload of HELLO and WELCOME. ``max_samples`` is the largest batch that it takes."""

    protocol: int
    model: str
    plan_sha256: str
    number: int
    rank: int
    workers: int
    wire: str
    max_samples: int

    def to_bytes(self) -> bytes:
        """Canonical JSON: keys in order, no spaces; equal values give equal bytes."""
        document = {
            "protocol": self.protocol,
            "model": self.model,
            "planSha256": self.plan_sha256,
            "set": self.number,
            "rank": self.rank,
            "workers": self.workers,
            "wire": self.wire,
            "maxSamples": self.max_samples,
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, raw: bytes | bytearray) -> Hello:
        """Read a peer's. Raises :class:`ProtocolError` (``hello``) for anything but canonical JSON of these fields."""
        try:
            document: Any = json.loads(bytes(raw).decode())
            found = cls(
                protocol=document["protocol"],
                model=document["model"],
                plan_sha256=document["planSha256"],
                number=document["set"],
                rank=document["rank"],
                workers=document["workers"],
                wire=document["wire"],
                max_samples=document["maxSamples"],
            )
            canonical = found.to_bytes()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ProtocolError("hello", type(error).__name__) from error
        numbers = (found.protocol, found.number, found.rank, found.workers, found.max_samples)
        texts = (found.model, found.plan_sha256, found.wire)
        if not (all(type(each) is int for each in numbers) and all(isinstance(each, str) for each in texts)):
            raise ProtocolError("hello", "a value of another type")
        if canonical != bytes(raw):
            raise ProtocolError("hello", "not in canonical form")
        if found.max_samples < 1:
            raise ProtocolError("hello", "no samples")
        return found


def refusal_of(peer: Hello, *, mine: Hello, rank: int | None = None) -> Refusal | None:
    """Why ``peer`` is refused; ``rank`` is the one that it must have, by default any but mine."""
    is_rank = peer.rank != mine.rank and 0 <= peer.rank < mine.workers if rank is None else peer.rank == rank
    checks = (
        (peer.protocol == mine.protocol, Refusal.PROTOCOL),
        (peer.model == mine.model, Refusal.MODEL),
        (peer.plan_sha256 == mine.plan_sha256, Refusal.PLAN),
        (peer.number == mine.number, Refusal.SET),
        (peer.workers == mine.workers, Refusal.WORKERS),
        (peer.wire == mine.wire, Refusal.WIRE),
        (is_rank, Refusal.RANK),
    )
    return next((refusal for holds, refusal in checks if not holds), None)
