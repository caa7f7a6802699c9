"""Which frames a peer may send: the length that is due for each header, or why the connection ends."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio_worker.protocol.frames import Header, Kind, ProtocolError, plan_number
from edgefolio_worker.protocol.handshake import MOST_HELLO_BYTES
from edgefolio_worker.protocol.plan import Transfer, WorkerPlan

__all__ = ["APART", "PONG_BYTES", "Expectation", "entry_of", "job_number"]

#: Milliseconds that the present task takes already, microseconds of the last job's own computing; both u32.
PONG_BYTES = 8
#: Instead of the milliseconds: the worker is not linked with all of its peers, so that no job would end.
APART = 2**32 - 1
_COUNT_BITS = 56
_NOTHING = range(1)
_PONG = range(PONG_BYTES, PONG_BYTES + 1)
_HELLO = range(1, MOST_HELLO_BYTES + 1)


def job_number(entry: int, count: int) -> int:
    """The number of the ``count``-th job that entered at ``entry``."""
    return entry << _COUNT_BITS | count % (1 << _COUNT_BITS)


def entry_of(job: int) -> int:
    """The rank at which a job entered."""
    return job >> _COUNT_BITS


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What is due from one connection.

    ``peer`` is the other side's rank, ``None`` before it has said it (then only HELLO is due). ``is_linked`` tells that
    the handshake is over; before it, who connected waits for WELCOME or REFUSE.
    """

    plan: WorkerPlan
    number: int
    max_samples: int
    peer: int | None
    is_linked: bool

    def due(self, header: Header) -> range:
        """The payload lengths that are right for ``header``. Raises :class:`ProtocolError`."""
        kind = header.kind
        if not self.is_linked:
            wanted = (Kind.HELLO,) if self.peer is None else (Kind.WELCOME, Kind.REFUSE)
            if kind not in wanted:
                raise ProtocolError("order", f"{kind.name} before the handshake")
            # Plan and set stand in the payload as well; so a refusal can say which of them is wrong.
            return _NOTHING if kind is Kind.REFUSE else _HELLO
        if header.sender != self.peer:
            raise ProtocolError("sender", f"{header.sender} on the connection of {self.peer}")
        if header.plan != plan_number(self.plan.sha256):
            raise ProtocolError("plan")
        if header.number != self.number:
            raise ProtocolError("set", f"{header.number} instead of {self.number}")
        if kind in (Kind.PING, Kind.BYE):
            return _NOTHING
        if kind is Kind.PONG:
            return _PONG
        return self._of_job(header)

    def _of_job(self, header: Header) -> range:
        kind, entry = header.kind, entry_of(header.job)
        if kind in (Kind.HELLO, Kind.WELCOME, Kind.REFUSE):
            raise ProtocolError("order", f"{kind.name} after the handshake")
        must_enter_at = {Kind.INPUT: header.sender, Kind.CANCEL: header.sender, Kind.RESULT: self.plan.rank}
        if entry != must_enter_at.get(kind, entry) or entry >= self.plan.workers:
            raise ProtocolError("job", f"{kind.name} of worker {header.sender} for a job of worker {entry}")
        if kind is Kind.CANCEL:
            return _NOTHING
        if not 1 <= header.samples <= self.max_samples:
            raise ProtocolError("samples", f"{header.samples} of at most {self.max_samples}")
        if kind is Kind.INPUT:
            return _exactly(self.plan.input_bytes(header.samples))
        if kind is Kind.RESULT:
            if not self.plan.parts_of(header.sender):
                raise ProtocolError("result", f"worker {header.sender} has no part in the answer")
            return _exactly(self.plan.result_bytes(header.sender, header.samples))
        return _exactly(self.plan.transfer_bytes(self.transfer(header), header.samples))

    def transfer(self, header: Header) -> Transfer:
        """The transfer that MAPS carry. Raises :class:`ProtocolError` if the plan has none there."""
        for transfer in self.plan.incoming:
            if (transfer.exchange, transfer.sender) == (header.code, header.sender):
                return transfer
        raise ProtocolError("exchange", f"{header.code} from worker {header.sender}")


def _exactly(size: int) -> range:
    return range(size, size + 1)
