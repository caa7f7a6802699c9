"""The set file: peers, addresses, certificates, set number, fallback and abandon time of one worker.

The agent writes it in one step, the worker watches it. It lies outside Triton's model repository, and nothing of it
stands in Triton's configuration: a changed configuration would load every version anew.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any

__all__ = ["LARGEST_BYTES", "NAME", "Peer", "SetError", "WorkerSet", "split_address"]

NAME = "set.json"
LARGEST_BYTES = 256 << 10
_MOST_MILLISECONDS = 3_600_000.0


class SetError(ValueError):
    """The file is no set that this worker could belong to."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another worker: its ``address`` as ``ip:port``, and its certificate (PEM; empty without TLS)."""

    rank: int
    address: str
    certificate: str


@dataclass(frozen=True, kw_only=True)
class WorkerSet:
    """The set of one worker. ``certificate`` and ``key`` are the paths of its own, both empty without TLS.

    ``fallback`` is a Triton version, ``abandon_milliseconds`` what a job may take before it answers instead,
    ``predicted_milliseconds`` the 95th percentile that was predicted of a job: a probe job may take twice of it.
    """

    model: str
    plan_sha256: str
    number: int
    rank: int
    listen: str
    peers: tuple[Peer, ...]
    certificate: str
    key: str
    fallback: int
    abandon_milliseconds: float
    predicted_milliseconds: float

    def __post_init__(self) -> None:
        """Raises :class:`SetError` if it contradicts itself."""
        ranks = sorted([self.rank, *(peer.rank for peer in self.peers)])
        _require(len(ranks) >= 2 and ranks == list(range(len(ranks))), f"ranks are {ranks}, not 0 and so on, each once")
        _require(0 <= self.number < 2**32, f"the set's number is {self.number}")
        for milliseconds in (self.abandon_milliseconds, self.predicted_milliseconds):
            # A NaN compares as false.
            _require(0 < milliseconds <= _MOST_MILLISECONDS, f"a time of {milliseconds} ms")
        hosts = [split_address(address)[0] for address in (self.listen, *(peer.address for peer in self.peers))]
        has_identity = [bool(self.certificate), bool(self.key), *(bool(peer.certificate) for peer in self.peers)]
        _require(all(has_identity) or not any(has_identity), "certificates and a key are needed for all or for none")
        if not self.is_encrypted:
            far = [host for host in hosts if not ipaddress.ip_address(host).is_loopback]
            _require(not far, f"without certificates workers talk over loopback alone, not over {', '.join(far)}")

    @property
    def is_encrypted(self) -> bool:
        """Whether workers show each other certificates."""
        return bool(self.key)

    def has_same_links(self, other: WorkerSet) -> bool:
        """Whether only fallback or times differ, so that connections may stay."""
        return self._links() == other._links()

    def _links(self) -> tuple[Any, ...]:
        return (
            self.model,
            self.plan_sha256,
            self.number,
            self.rank,
            self.listen,
            self.peers,
            self.certificate,
            self.key,
        )

    def to_bytes(self) -> bytes:
        """As it is written."""
        document = {
            "model": self.model,
            "planSha256": self.plan_sha256,
            "number": self.number,
            "rank": self.rank,
            "listen": self.listen,
            "peers": [
                {"rank": peer.rank, "address": peer.address, "certificate": peer.certificate} for peer in self.peers
            ],
            "certificate": self.certificate,
            "key": self.key,
            "fallback": self.fallback,
            "abandonMilliseconds": self.abandon_milliseconds,
            "predictedMilliseconds": self.predicted_milliseconds,
        }
        return (json.dumps(document, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> WorkerSet:
        """Read it. Raises :class:`SetError`."""
        _require(len(raw) <= LARGEST_BYTES, f"it is larger than {LARGEST_BYTES} bytes")
        try:
            document = json.loads(raw)
            peers = tuple(
                Peer(rank=int(each["rank"]), address=str(each["address"]), certificate=str(each["certificate"]))
                for each in document["peers"]
            )
            return cls(
                model=str(document["model"]),
                plan_sha256=str(document["planSha256"]),
                number=int(document["number"]),
                rank=int(document["rank"]),
                listen=str(document["listen"]),
                peers=peers,
                certificate=str(document["certificate"]),
                key=str(document["key"]),
                fallback=int(document["fallback"]),
                abandon_milliseconds=float(document["abandonMilliseconds"]),
                predicted_milliseconds=float(document["predictedMilliseconds"]),
            )
        except SetError:
            raise
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise SetError(f"it cannot be read ({type(error).__name__}: {str(error)[:200]})") from error


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``ip:port`` or ``[ip]:port``. Raises :class:`SetError` for names: a worker resolves none."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError as error:
        raise SetError(f"{address[:80]!r} is not an IP address and a port") from error
    _require(1 <= number <= 65535, f"{address[:80]!r} has no port between 1 and 65535")
    return host, number


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise SetError(problem)
