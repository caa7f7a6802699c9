"""Handshakes: who is on the other side of a connection, and whether it belongs to the set."""

from __future__ import annotations

import ssl

from edgefolio_worker.network.connection import Connection, ConnectionEndedError
from edgefolio_worker.network.identity import Identity
from edgefolio_worker.protocol.expected import Expectation
from edgefolio_worker.protocol.frames import Frame, Header, Kind, ProtocolError, plan_number
from edgefolio_worker.protocol.handshake import Hello, Refusal, refusal_of
from edgefolio_worker.protocol.plan import WorkerPlan
from edgefolio_worker.records.set_file import WorkerSet

__all__ = ["Handshakes", "RefusedError"]


class RefusedError(ConnectionEndedError):
    """One side refused the other; ``rank`` is whom the other side said to be, where that is known."""

    def __init__(self, refusal: Refusal | None, detail: str = "", *, rank: int | None = None) -> None:
        self.rank = rank
        super().__init__("refused" if refusal is None else f"refused-{refusal.name.lower()}", detail)


class Handshakes:
    """What the worker of ``plan`` says of itself, and what it demands of others."""

    def __init__(self, *, plan: WorkerPlan, worker_set: WorkerSet, hello: Hello) -> None:
        """Raises :class:`~edgefolio_worker.records.set_file.SetError` if certificates or key cannot be used."""
        self._plan, self._set, self._hello = plan, worker_set, hello
        self._identity = Identity(worker_set)

    @property
    def max_samples(self) -> int:
        """The largest batch that this worker takes."""
        return self._hello.max_samples

    def header(self, kind: Kind, *, code: int = 0, job: int = 0, samples: int = 0) -> Header:
        """The header of a frame of this worker; whoever sends it adds the length."""
        return Header(
            kind=kind,
            sender=self._plan.rank,
            plan=plan_number(self._plan.sha256),
            number=self._set.number,
            code=code,
            job=job,
            samples=samples,
        )

    def expectation(self, peer: int | None, *, is_linked: bool) -> Expectation:
        """What is due from ``peer``."""
        return Expectation(
            plan=self._plan, number=self._set.number, max_samples=self.max_samples, peer=peer, is_linked=is_linked
        )

    def context(self, peer: int | None) -> ssl.SSLContext | None:
        """TLS for a connection to ``peer``, or for those who connect."""
        return self._identity.accepting() if peer is None else self._identity.connecting(peer)

    def greet(self, connection: Connection) -> None:
        """Look at the certificate, and say HELLO as the one who connected. Raises ConnectionEndedError."""
        if self._set.is_encrypted:
            found = self._identity.rank_of(connection.certificate())
            if found is None or (connection.is_caller and found != connection.peer):
                raise ConnectionEndedError("certificate")
        if connection.is_caller:
            connection.outbox.put(self.header(Kind.HELLO), (self._hello.to_bytes(),))

    def shaken(self, connection: Connection, frame: Frame) -> Hello:
        """Whoever said HELLO or WELCOME, and is answered. Raises :class:`RefusedError` and ProtocolError."""
        if frame.header.kind is Kind.REFUSE:
            code = frame.header.code
            raise RefusedError(Refusal(code) if code in set(Refusal) else None, rank=connection.peer)
        hello = Hello.from_bytes(frame.payload)
        if frame.header.sender != hello.rank:
            raise ProtocolError("sender", f"{frame.header.sender} says that it is {hello.rank}")
        certified = self._identity.rank_of(connection.certificate()) if self._set.is_encrypted else connection.peer
        refusal = refusal_of(hello, mine=self._hello, rank=certified)
        if refusal is None and not connection.is_caller and hello.rank > self._plan.rank:
            refusal = Refusal.RANK  # the one of lower rank connects
        if refusal is not None and not connection.is_caller:
            connection.outbox.put(self.header(Kind.REFUSE, code=refusal))
            connection.write()
        if refusal is not None:
            raise RefusedError(refusal, _both(hello, self._hello), rank=hello.rank)
        if not connection.is_caller:
            connection.outbox.put(self.header(Kind.WELCOME), (self._hello.to_bytes(),))
        return hello


def _both(theirs: Hello, mine: Hello) -> str:
    return (
        f"it has protocol {theirs.protocol}, plan {theirs.plan_sha256[:12]}, set {theirs.number}, rank {theirs.rank}; "
        f"this worker has protocol {mine.protocol}, plan {mine.plan_sha256[:12]}, set {mine.number}, rank {mine.rank}"
    )
