"""The engine: one compute thread that runs the oldest job whose next segment has all of its inputs.

It never waits for a message, and neither does any job for another; so no order of requests at the entries can lock up.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic, time_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio_worker.computing.probe_file import Arrays
from edgefolio_worker.computing.shard import Shard
from edgefolio_worker.network.hub import Hub
from edgefolio_worker.protocol.circuit import Circuit
from edgefolio_worker.protocol.expected import APART, Expectation, entry_of
from edgefolio_worker.protocol.frames import Frame, Header, Kind
from edgefolio_worker.protocol.handshake import Hello
from edgefolio_worker.protocol.jobs import JobTable, Task
from edgefolio_worker.serving.tally import Tally

__all__ = ["Engine", "UnansweredError"]

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
_LITTLE = np.dtype("<f4")


class UnansweredError(Exception):
    """The peers did not answer a job: ``late``, ``failed``, or what was lost meanwhile."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Engine:
    """Jobs of the shard's worker, of all entries. It is what a hub tells what happens."""

    def __init__(self, shard: Shard, *, max_samples: int) -> None:
        """``max_samples`` is the largest batch that this worker takes."""
        self.shard, self.plan = shard, shard.plan
        self.max_samples = max_samples
        self.circuit = Circuit()
        self.tally = Tally()
        self.patience = 100.0
        # Microseconds since the epoch: a worker that starts anew goes on above where it was.
        self._table = JobTable(self.plan, inputs=shard.inputs, first_count=time_ns() // 1000)
        self._hub: Hub | None = None
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._done = threading.Condition(self._lock)
        #: One job enters here at a time: a request's or a probe.
        self._entry = threading.Lock()
        self._peer_samples: dict[int, int] = {}
        #: Whether all peers are linked and answer pings; how often one was lost, and why the last time.
        self._are_alive = False
        self._losses = 0
        self._lost = "forming"
        self._failed = False
        self._task_since: float | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="worker-compute", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the segment that runs."""
        with self._lock:
            self._is_stopping = True
            self._work.notify_all()
        self._thread.join(timeout=5)

    def attach(self, hub: Hub | None, *, reason: str) -> None:
        """Ask the peers through ``hub`` from now on; ``None``: nobody, for that reason."""
        with self._lock:
            self._hub = hub
            self._peer_samples.clear()
            for peer in self.plan.peers:
                self._table.restarted(peer)
            self._lose(reason)

    def why_not(self, shape: tuple[int, ...]) -> str | None:
        """Why a request of this shape is not for the peers; ``None`` if it is."""
        with self._lock:
            if self.circuit.reason is not None:
                return self.circuit.reason
            if shape[1:] != self.plan.input_shape:
                return "shape"
            most = min([self.max_samples, *self._peer_samples.values()])
            return None if 1 <= shape[0] <= most else "batch"

    def ask(self, values: Floats, *, seconds: float) -> tuple[Floats, ...]:
        """The outputs for a batch, by all workers together. Raises :class:`UnansweredError`."""
        with self._entry:
            return self._ask(values, seconds)

    def report(self, problem: str | None) -> None:
        """Tell the circuit how a request's job ended; one that was lost with a link says nothing more."""
        with self._lock:
            if problem is None:
                self.circuit.answered()
                self.tally.answers["split", ""] += 1
            elif problem in ("late", "failed"):
                self.circuit.abandoned(monotonic())

    def may_probe(self) -> bool:
        """Whether a probe job is due."""
        with self._lock:
            return self.circuit.may_probe(monotonic())

    def probed(self, *, is_good: bool) -> None:
        """Tell the circuit how a probe job ended."""
        with self._lock:
            self.circuit.probed(monotonic(), is_good=is_good)

    def counted(self) -> tuple[Tally, str | None]:
        """A copy of the counts, and why the fallback answers; ``None`` if the peers do."""
        with self._lock:
            return self.tally.copy(), self.circuit.reason

    def fell_back(self, reason: str) -> None:
        """Count an answer of the fallback."""
        with self._lock:
            self.tally.fell_back(reason)

    # What the hub tells.

    def linked(self, peer: int, hello: Hello) -> None:
        """A peer is linked: what it began before is over."""
        with self._lock:
            self._peer_samples[peer] = hello.max_samples
            self._table.restarted(peer)

    def unlinked(self, peer: int) -> None:
        """A link is over, and with it the jobs that entered there."""
        with self._lock:
            self._peer_samples.pop(peer, None)
            self._table.restarted(peer)
            # It may be linked anew at once, and knows nothing of what was sent before.
            self._losses += 1
            self._lost = "lost"
            self._done.notify_all()

    def peers_are(self, reason: str | None) -> None:
        """Why the peers cannot be asked; ``None`` if they can."""
        with self._lock:
            if self._hub is None:
                return
            if reason is None:
                self._are_alive = True
                self.circuit.peers_alive(monotonic())
            else:
                self._lose(reason)

    def pulse(self) -> tuple[int, int]:
        """Milliseconds that the present task takes, or APART; microseconds that the last job took here."""
        is_apart = len(self._peer_samples) < len(self.plan.peers)
        return APART if is_apart else self.task_milliseconds(), int(1e6 * self.tally.last_compute_seconds)

    def task_milliseconds(self) -> int:
        """How long the present task takes already; 0 if there is none."""
        since = self._task_since
        return 0 if since is None else int(1e3 * (monotonic() - since))

    @property
    def patience_milliseconds(self) -> float:
        """A peer whose task takes longer than any job may hangs."""
        return self.patience

    def received(self, peer: int, frame: Frame) -> None:
        """Take a frame of a job. Raises ProtocolError if it is not right."""
        header, payload = frame.header, frame.payload
        name: str | None = None
        value: Any = None
        if header.kind is Kind.INPUT:
            value = np.frombuffer(payload, dtype=_LITTLE).reshape(header.samples, *self.plan.input_shape)
        elif header.kind is Kind.MAPS:
            name = self._expectation(peer).transfer(header).received
            value = self.shard.arrived(name, payload, header.samples)
        elif header.kind is Kind.RESULT:
            value = self._parts(header, payload)
        with self._lock:
            if self._table.receive(header, value, name=name, now=monotonic()):
                (self._done if header.kind is Kind.RESULT else self._work).notify_all()

    def _expectation(self, peer: int) -> Expectation:
        return Expectation(plan=self.plan, number=0, max_samples=self.max_samples, peer=peer, is_linked=True)

    def _parts(self, header: Header, payload: bytearray) -> tuple[Floats, ...]:
        plan, found, first = self.plan, [], 0
        values = np.frombuffer(payload, dtype=_LITTLE)
        for output in plan.parts_of(header.sender):
            shape = (header.samples, *plan.output_shapes[output])
            last = first + int(np.prod(shape))
            found.append(values[first:last].reshape(shape))
            first = last
        return tuple(found)

    def _ask(self, values: Floats, seconds: float) -> tuple[Floats, ...]:
        began = monotonic()
        with self._lock:
            hub, losses = self._hub, self._losses
            if hub is None or not self._are_alive:
                raise UnansweredError(self._lost)
            self._failed = False
            values = np.ascontiguousarray(values, dtype=_LITTLE)
            number, frames = self._table.begin(len(values), values, now=began)
            self._work.notify_all()
        hub.send(frames)
        with self._lock:
            while (results := self._table.results(number)) is None:
                left = began + seconds - monotonic()
                is_lost = losses != self._losses
                if not is_lost and not self._failed and left > 0:
                    self._done.wait(left)
                    continue
                cancelled = self._table.abandon(number)
                reason = self._lost if is_lost else "failed" if self._failed else "late"
                break
            else:
                self.tally.answered(number, monotonic() - began)
                return self._combined(results)
        hub.send(cancelled)
        raise UnansweredError(reason)

    def _combined(self, results: dict[int, tuple[Floats, ...]]) -> tuple[Floats, ...]:
        plan, found = self.plan, []
        for output, is_sum in enumerate(plan.sums):
            parts = [
                results[rank][plan.parts_of(rank).index(output)]
                for rank in sorted(plan.answering)
                if output in plan.parts_of(rank)
            ]
            total = parts[0]
            for part in parts[1:] if is_sum else ():
                total = total + part
            found.append(np.asarray(total, dtype=np.float32))
        return tuple(found)

    def _lose(self, reason: str) -> None:
        self.circuit.peers_lost(reason, monotonic())
        self._are_alive = False
        self._losses += 1
        self._lost = reason
        self._done.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                while (task := self._table.next_task()) is None and not self._is_stopping:
                    self._work.wait()
                if self._is_stopping:
                    return
                hub = self._hub
            assert task is not None
            self._compute(task, hub)

    def _compute(self, task: Task, hub: Hub | None) -> None:
        self._task_since = began = monotonic()
        try:
            outputs: Arrays | None = {
                name: np.ascontiguousarray(values) for name, values in self.shard.run(task.segment, task.inputs).items()
            }
        except Exception:
            logger.exception("Segment %d cannot be computed.", task.segment)
            outputs = None
        self._task_since = None
        with self._lock:
            if outputs is None:
                self._table.fail(task)
                self._failed = self._failed or entry_of(task.job) == self.plan.rank
                self._done.notify_all()
                return
            is_last = task.segment == len(self.shard.inputs) - 1
            self.tally.spent(task.job, monotonic() - began, is_last=is_last)
            frames = self._table.complete(task, outputs)
            if is_last:
                self._done.notify_all()
        if hub is not None and frames:
            hub.send(frames)
