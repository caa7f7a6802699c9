"""The hub: one thread that moves the bytes of all peers in both directions, and never waits for any of them.

The worker of lower rank connects. Both sides send before they read, so that nothing may block: a map can be larger
than what the kernel buffers.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import struct
import threading
from collections.abc import Iterable
from time import monotonic

from edgefolio_worker.network.connection import Connection, ConnectionEndedError, Stage
from edgefolio_worker.network.door import MOST_STRANGERS, Door, socket_for
from edgefolio_worker.network.handshakes import Handshakes, RefusedError
from edgefolio_worker.network.links import HubEvents, Links
from edgefolio_worker.network.outbox import OutboxFullError
from edgefolio_worker.protocol.frames import Frame, Header, Kind, ProtocolError
from edgefolio_worker.protocol.handshake import Hello
from edgefolio_worker.protocol.jobs import Outgoing
from edgefolio_worker.protocol.plan import WorkerPlan
from edgefolio_worker.records.set_file import WorkerSet, split_address
from edgefolio_worker.records.status_file import PeerStatus

__all__ = ["PING_SECONDS", "Hub"]

logger = logging.getLogger(__name__)

PING_SECONDS = 0.1
HANDSHAKE_SECONDS = 3.0
RECONNECT_SECONDS = 0.2
#: After a refusal: it takes a new order to change.
REFUSED_SECONDS = 1.0
_PULSE = struct.Struct("<II")
_U32 = 2**32 - 1
#: Outbox of a connection that is not linked, and what a link's has beside its maps.
_SPARE_BYTES = 64 << 10


class Hub:
    """Connections of the worker of ``plan`` in ``worker_set``; ``hello`` is what it says of itself."""

    def __init__(self, *, plan: WorkerPlan, worker_set: WorkerSet, hello: Hello, events: HubEvents) -> None:
        """Raises :class:`~edgefolio_worker.records.set_file.SetError` if certificates or key cannot be used."""
        self._plan, self._set, self._events = plan, worker_set, events
        self._handshakes = Handshakes(plan=plan, worker_set=worker_set, hello=hello)
        self._links = Links(plan.peers)
        self._strangers: dict[int, Connection] = {}
        self._door = Door(worker_set.listen) if worker_set.rank > 0 else None
        self._called_at = {peer.rank: 0.0 for peer in worker_set.peers if peer.rank > worker_set.rank}
        self._doomed: set[Connection] = set()
        self._told: str | None = "forming"
        self._next_tick = 0.0
        self._selector = selectors.DefaultSelector()
        self._interests: dict[int, int] = {}
        self._wake, self._woken = socket.socketpair()
        self._is_woken = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker-links", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._thread.start()

    def stop(self) -> None:
        """Say BYE to the peers and close everything."""
        self._stopping.set()
        self._wake_up()
        self._thread.join(timeout=2)

    def send(self, frames: Iterable[Outgoing]) -> None:
        """Send frames of jobs, from any thread. What is for a peer that is not linked is dropped."""
        for frame in frames:
            link = self._links.of(frame.to)
            if link is None:
                continue
            header = self._handshakes.header(frame.kind, code=frame.code, job=frame.job, samples=frame.samples)
            self._put(link, header, frame.tensors)
        self._wake_up()

    def status(self) -> tuple[PeerStatus, ...]:
        """How each peer is; from any thread."""
        return self._links.status()

    @property
    def problem(self) -> str | None:
        """Why others cannot connect."""
        return None if self._door is None else self._door.problem

    def ended(self) -> dict[str, int]:
        """Connections that were ended, by reason."""
        return dict(self._links.ended)

    def _put(self, connection: Connection, header: Header, tensors: tuple[object, ...] = ()) -> None:
        try:
            connection.outbox.put(header, tensors)
        except OutboxFullError:
            # Only the hub's thread ends connections.
            self._doomed.add(connection)

    def _wake_up(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(OSError):
                self._wake.send(b"\0")

    def _run(self) -> None:
        self._selector.register(self._woken, selectors.EVENT_READ)
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception:
                # Peers and requests depend on this thread: it goes on.
                logger.exception("A turn of the links failed.")
                self._stopping.wait(PING_SECONDS)
        self._leave()

    def _turn(self) -> None:
        now = monotonic()
        if now >= self._next_tick:
            self._next_tick = now + PING_SECONDS
            self._tick(now)
        self._arrange(now)
        has_more = any(connection.has_more for connection in self._connections())
        ready = self._selector.select(0 if has_more else max(0.0, self._next_tick - monotonic()))
        numbers = {key.fd for key, _ in ready}
        if self._woken.fileno() in numbers:
            # In this order: a byte that is read after the flag fell would leave it standing, and nobody wakes any more.
            with contextlib.suppress(OSError):
                self._woken.recv(64)
            self._is_woken = False
        for connection in self._connections():
            if not connection.is_closed and (connection.number in numbers or connection.has_more or connection.outbox):
                self._serve(connection)
        if self._door is not None and self._door.number in numbers:
            self._let_in(monotonic())
        self._tell()

    def _connections(self) -> tuple[Connection, ...]:
        return (*self._links.all(), *self._strangers.values())

    def _arrange(self, now: float) -> None:
        """Have the selector watch what matters now."""
        wanted = {
            connection.number: selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_write else 0)
            for connection in self._connections()
        }
        door = self._door
        if door is not None and door.number is not None and door.lets_in(now):
            wanted[door.number] = selectors.EVENT_READ
        for number in set(self._interests) - set(wanted):
            self._forget(number)
        for number, mask in wanted.items():
            known = self._interests.get(number)
            if known is None:
                self._selector.register(number, mask)
            elif known != mask:
                self._selector.modify(number, mask)
            self._interests[number] = mask

    def _forget(self, number: int) -> None:
        if self._interests.pop(number, None) is not None:
            with contextlib.suppress(KeyError, ValueError, OSError):
                self._selector.unregister(number)

    def _tick(self, now: float) -> None:
        for connection in self._connections():
            if connection.stage is Stage.LINKED:
                self._ping(connection, now)
            elif now >= connection.deadline:
                self._end(connection, "unreachable" if connection.stage is Stage.CONNECTING else "slow-handshake")
        if self._door is not None:
            self._door.try_to_open(now)
        calling = {each.peer for each in self._strangers.values() if each.is_caller}
        for peer, due in self._called_at.items():
            if self._links.of(peer) is None and peer not in calling and now >= due:
                self._call(peer, now)

    def _ping(self, connection: Connection, now: float) -> None:
        connection.pings += 1
        connection.unanswered += 1
        connection.pinged_at = now
        self._put(connection, self._handshakes.header(Kind.PING, job=connection.pings))

    def _call(self, peer: int, now: float) -> None:
        self._called_at[peer] = now + RECONNECT_SECONDS
        address = next(each.address for each in self._set.peers if each.rank == peer)
        raw = socket_for(address)
        raw.setblocking(False)
        code = raw.connect_ex(split_address(address))
        if code not in (0, errno.EINPROGRESS):
            raw.close()
            self._links.reasons[peer] = "unreachable"
            return
        self._admit(raw, peer=peer, now=now)

    def _let_in(self, now: float) -> None:
        door = self._door
        if door is None or door.socket is None:
            return
        while door.lets_in(now) and (raw := door.accept()) is not None:
            waiting = [each for each in self._strangers.values() if not each.is_caller]
            if len(waiting) >= MOST_STRANGERS:
                self._end(min(waiting, key=lambda each: each.deadline), "flood")
            self._admit(raw, peer=None, now=now)

    def _admit(self, raw: socket.socket, *, peer: int | None, now: float) -> None:
        context = self._handshakes.context(peer)
        try:
            connection = Connection(
                raw,
                expectation=self._handshakes.expectation(peer, is_linked=False),
                most_bytes=_SPARE_BYTES,
                context=context,
                is_caller=peer is not None,
                deadline=now + HANDSHAKE_SECONDS,
            )
        except (ConnectionEndedError, OSError):
            raw.close()
            self._links.ended["lost"] += 1
            return
        self._strangers[connection.number] = connection

    def _serve(self, connection: Connection) -> None:
        """Read and write what is possible; whatever is wrong ends this connection and no other."""
        try:
            if connection.stage not in (Stage.GREETING, Stage.LINKED):
                if not connection.advance():
                    return
                self._handshakes.greet(connection)
            # First what waits: somebody computes as soon as it is there.
            connection.write()
            for frame in connection.read():
                self._take(connection, frame)
            connection.write()
            if connection in self._doomed:
                self._end(connection, "slow")
        except RefusedError as error:
            self._end(connection, error.reason, detail=str(error))
            if error.rank in self._plan.peers and self._links.of(error.rank) is None:
                self._links.reasons[error.rank] = error.reason
        except (ConnectionEndedError, ProtocolError) as error:
            self._end(connection, error.reason, detail=str(error))
        except OutboxFullError:
            self._end(connection, "slow")
        except Exception:
            logger.exception("A connection is ended by a fault of this program.")
            self._end(connection, "fault")

    def _take(self, connection: Connection, frame: Frame) -> None:
        header, peer = frame.header, connection.peer
        if connection.stage is not Stage.LINKED:
            self._link(connection, self._handshakes.shaken(connection, frame))
        elif header.kind is Kind.PING:
            age, own = self._events.pulse()
            payload = _PULSE.pack(min(age, _U32), min(own, _U32))
            connection.outbox.put(self._handshakes.header(Kind.PONG, job=header.job), (payload,))
        elif header.kind is Kind.PONG:
            connection.unanswered = 0
            connection.task_milliseconds, microseconds = _PULSE.unpack(frame.payload)
            connection.own_milliseconds = microseconds / 1e3
            if header.job == connection.pings:
                connection.round_trip = monotonic() - connection.pinged_at
        elif header.kind is Kind.BYE:
            raise ConnectionEndedError("bye")
        else:
            assert peer is not None
            self._events.received(peer, frame)

    def _link(self, connection: Connection, hello: Hello) -> None:
        former = self._links.of(hello.rank)
        if former is not None:
            self._end(former, "replaced")
        self._strangers.pop(connection.number, None)
        connection.expectation = self._handshakes.expectation(hello.rank, is_linked=True)
        jobs = self._plan.workers + 1
        most = self._plan.most_bytes_to(hello.rank, self._handshakes.max_samples)
        connection.outbox.bound(jobs * (most + 64 * (2 + len(self._plan.outgoing))) + _SPARE_BYTES)
        connection.stage = Stage.LINKED
        self._links.add(hello.rank, connection)
        # At once: the first answer completes the link.
        self._ping(connection, monotonic())
        self._events.linked(hello.rank, hello)

    def _end(self, connection: Connection, reason: str, *, detail: str = "") -> None:
        self._forget(connection.number)
        self._doomed.discard(connection)
        connection.close()
        self._links.ended[reason] += 1
        peer = connection.peer
        if self._strangers.pop(connection.number, None) is not None:
            if peer is not None:
                known = self._links.reasons.get(peer)
                self._links.reasons[peer] = reason
                if reason.startswith("refused"):
                    self._called_at[peer] = monotonic() + REFUSED_SECONDS
                if reason not in (known, "unreachable"):
                    logger.warning("Worker %d is not linked: %s", peer, detail or reason)
        elif peer is not None and self._links.remove(peer, connection, reason):
            logger.warning("The link to worker %d is over: %s", peer, detail or reason)
            self._events.unlinked(peer)

    def _tell(self) -> None:
        problem = self._links.problem(self._events.patience_milliseconds)
        if problem != self._told:
            self._told = problem
            self._events.peers_are(problem)

    def _leave(self) -> None:
        for link in self._links.all():
            with contextlib.suppress(ConnectionEndedError, OutboxFullError, OSError):
                link.outbox.put(self._handshakes.header(Kind.BYE))
                link.write()
        for connection in self._connections():
            connection.close()
        if self._door is not None:
            self._door.close()
        self._selector.close()
        self._wake.close()
        self._woken.close()
