"""The status file: how a worker is, once a second, for the agent beside it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["PeerStatus", "WorkerStatus", "status_name", "write_in_one_step"]


def status_name(version: int) -> str:
    """The file's name for the worker of a Triton version: two of them live side by side during a switch."""
    return f"status-{version}.json"


@dataclass(frozen=True, kw_only=True)
class PeerStatus:
    """One peer. ``reason`` says why it is not linked. Byte counts are those since the links of the set were made.

    ``compute_milliseconds`` is what its part of its last job took it.
    ``bytes_per_second`` is what arrived at most in the last large maps; ``None`` if there were none.
    """

    rank: int
    is_linked: bool
    reason: str | None
    round_trip_milliseconds: float | None
    compute_milliseconds: float | None
    bytes_per_second: float | None
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """One worker. ``reason`` is ``None`` while requests go to the peers, else why the fallback answers.

    ``answers`` counts by who answered and why: ``("split", "")`` or ``("fallback", reason)``. Own computing and
    waiting are sums over ``jobs`` own jobs that the split answered; ``computed`` counts jobs of all entries.
    ``ended`` counts connections that were ended, by reason.
    """

    version: int
    set_number: int | None
    rank: int
    plan_sha256: str
    reason: str | None
    problem: str | None
    fallback: int
    answers: Mapping[tuple[str, str], int] = field(default_factory=dict)
    jobs: int = 0
    exchange_seconds: float = 0.0
    computed: int = 0
    compute_seconds: float = 0.0
    oldest_task_milliseconds: float = 0.0
    ended: Mapping[str, int] = field(default_factory=dict)
    peers: tuple[PeerStatus, ...] = ()
    #: Seconds since the epoch when it was written.
    time: float = 0.0

    @property
    def is_linked(self) -> bool:
        """Whether requests go to the peers."""
        return self.reason is None

    def to_bytes(self) -> bytes:
        """As it is written."""
        document = {
            "version": self.version,
            "set": self.set_number,
            "rank": self.rank,
            "planSha256": self.plan_sha256,
            "linked": self.is_linked,
            "reason": self.reason,
            "problem": self.problem,
            "fallback": self.fallback,
            "answers": [
                {"by": by, "reason": reason, "count": count} for (by, reason), count in sorted(self.answers.items())
            ],
            "jobs": self.jobs,
            "exchangeSeconds": self.exchange_seconds,
            "computed": self.computed,
            "computeSeconds": self.compute_seconds,
            "oldestTaskMilliseconds": self.oldest_task_milliseconds,
            "ended": dict(self.ended),
            "peers": [
                {
                    "rank": peer.rank,
                    "linked": peer.is_linked,
                    "reason": peer.reason,
                    "roundTripMilliseconds": peer.round_trip_milliseconds,
                    "computeMilliseconds": peer.compute_milliseconds,
                    "bytesPerSecond": peer.bytes_per_second,
                    "bytesIn": peer.bytes_in,
                    "bytesOut": peer.bytes_out,
                }
                for peer in self.peers
            ],
            "time": self.time,
        }
        return (json.dumps(document, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> WorkerStatus:
        """Read it. Raises :class:`ValueError`, :class:`KeyError` or :class:`TypeError` for anything else."""
        document: Any = json.loads(raw)
        return cls(
            version=int(document["version"]),
            set_number=None if document["set"] is None else int(document["set"]),
            rank=int(document["rank"]),
            plan_sha256=str(document["planSha256"]),
            reason=None if document["reason"] is None else str(document["reason"]),
            problem=None if document["problem"] is None else str(document["problem"]),
            fallback=int(document["fallback"]),
            answers={(str(each["by"]), str(each["reason"])): int(each["count"]) for each in document["answers"]},
            jobs=int(document["jobs"]),
            exchange_seconds=float(document["exchangeSeconds"]),
            computed=int(document["computed"]),
            compute_seconds=float(document["computeSeconds"]),
            oldest_task_milliseconds=float(document["oldestTaskMilliseconds"]),
            ended={str(reason): int(count) for reason, count in document["ended"].items()},
            peers=tuple(
                PeerStatus(
                    rank=int(each["rank"]),
                    is_linked=bool(each["linked"]),
                    reason=None if each["reason"] is None else str(each["reason"]),
                    round_trip_milliseconds=_number(each["roundTripMilliseconds"]),
                    compute_milliseconds=_number(each["computeMilliseconds"]),
                    bytes_per_second=_number(each["bytesPerSecond"]),
                    bytes_in=int(each["bytesIn"]),
                    bytes_out=int(each["bytesOut"]),
                )
                for each in document["peers"]
            ),
            time=float(document["time"]),
        )

    @classmethod
    def read(cls, folder: Path, version: int) -> WorkerStatus | None:
        """The worker's last word; ``None`` if there is none that can be read."""
        try:
            return cls.from_bytes((folder / status_name(version)).read_bytes())
        except (OSError, ValueError, KeyError, TypeError):
            return None


def write_in_one_step(path: Path, content: bytes) -> None:
    """Replace the file at ``path``: a reader sees the old content or the new. Raises :class:`OSError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
