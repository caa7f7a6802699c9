"""The job table of one worker: what has arrived, what can be computed, what is to be sent.

Each entry has one job at a time, so there are at most as many jobs as workers. A job that is newer than the one at hand
proves that the older is over: it takes its place. Nothing here waits, and no job depends on another, so that any order
of frames ends every job: of a job's segments each needs only what earlier ones of the workers gave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgefolio_worker.protocol.expected import entry_of, job_number
from edgefolio_worker.protocol.frames import Header, Kind, ProtocolError
from edgefolio_worker.protocol.plan import WorkerPlan

__all__ = ["JobTable", "Outgoing", "Task"]


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A frame to be sent to the worker ``to``; ``tensors`` are its payload in order, as they were given."""

    to: int
    kind: Kind
    job: int
    samples: int
    code: int = 0
    tensors: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A segment that can be computed, with its inputs by name."""

    job: int
    samples: int
    segment: int
    inputs: Mapping[str, Any]


@dataclass
class _Job:
    number: int
    samples: int
    #: When it was first heard of: the oldest comes first.
    order: int
    since: float
    held: dict[str, Any] = field(default_factory=dict)
    next_segment: int = 0
    is_running: bool = False
    results: dict[int, Any] = field(default_factory=dict)


class JobTable:
    """The jobs of the worker of ``plan``."""

    def __init__(self, plan: WorkerPlan, *, inputs: tuple[tuple[str, ...], ...], first_count: int = 1) -> None:
        """``inputs`` are the names that each segment of the worker reads; ``first_count`` numbers its first own job.

        A worker that starts anew must not count from where it began before: its peers would take its jobs for old ones.
        """
        if len(inputs) != len(plan.segments):
            raise ValueError("inputs of each segment are needed")
        self.plan = plan
        self._inputs = inputs
        self._count = first_count
        self._order = 0
        self._jobs: dict[int, _Job] = {}
        #: The newest job of each entry that was heard of, done or not.
        self._newest: dict[int, int] = {}

    def begin(self, samples: int, values: Any, *, now: float = 0.0) -> tuple[int, list[Outgoing]]:
        """Begin a job that enters here. Returns its number and what to send. One that is under way is over."""
        rank = self.plan.rank
        number = job_number(rank, self._count)
        self._count += 1
        job = self._open(rank, number, samples, now)
        job.held[self.plan.input] = values
        sent = [
            Outgoing(to=peer, kind=Kind.INPUT, job=number, samples=samples, tensors=(values,))
            for peer in self.plan.peers
        ]
        return number, sent

    def receive(self, header: Header, payload: Any, *, name: str | None = None, now: float = 0.0) -> bool:
        """Take INPUT, MAPS, RESULT or CANCEL that were expected; ``name`` is the tensor of MAPS.

        Returns whether it was of use; what comes too late is none. Raises :class:`ProtocolError` for what comes twice,
        or with another number of samples than before.
        """
        entry, kind = entry_of(header.job), header.kind
        if kind is Kind.CANCEL:
            self._newest[entry] = max(header.job, self._newest.get(entry, 0))
            known = self._jobs.get(entry)
            if known is None or known.number > header.job:
                return False
            del self._jobs[entry]
            return True
        job = self._jobs.get(entry)
        if job is None or job.number != header.job:
            # Only the entry itself begins a job of its own.
            if header.job <= self._newest.get(entry, 0) or entry == self.plan.rank:
                return False
            job = self._open(entry, header.job, header.samples, now)
        if job.samples != header.samples:
            raise ProtocolError("samples", f"{header.samples} after {job.samples} of the same job")
        if kind is Kind.RESULT:
            if header.sender in job.results:
                raise ProtocolError("twice", f"a result of worker {header.sender}")
            job.results[header.sender] = payload
            return True
        key = self.plan.input if kind is Kind.INPUT else name
        assert key is not None
        if key in job.held:
            raise ProtocolError("twice", f"{kind.name} of worker {header.sender}")
        job.held[key] = payload
        return True

    def next_task(self) -> Task | None:
        """The next segment of the oldest job that has all of its inputs; it then runs until :meth:`complete`."""
        for job in sorted(self._jobs.values(), key=lambda job: job.order):
            if job.is_running or job.next_segment == len(self._inputs):
                continue
            names = self._inputs[job.next_segment]
            if all(name in job.held for name in names):
                job.is_running = True
                given = {name: job.held[name] for name in names}
                return Task(job=job.number, samples=job.samples, segment=job.next_segment, inputs=given)
        return None

    def complete(self, task: Task, outputs: Mapping[str, Any]) -> list[Outgoing]:
        """Take what a task gave; what to send now. Nothing of a job that is over meanwhile."""
        entry, rank, plan = entry_of(task.job), self.plan.rank, self.plan
        job = self._jobs.get(entry)
        if job is None or job.number != task.job:
            return []
        job.is_running = False
        job.next_segment += 1
        job.held.update(outputs)
        sent = [
            Outgoing(
                to=each.receiver,
                kind=Kind.MAPS,
                job=job.number,
                samples=job.samples,
                code=each.exchange,
                tensors=(outputs[each.sent],),
            )
            for each in plan.outgoing
            if each.sent in outputs
        ]
        if job.next_segment < len(self._inputs):
            return sent
        parts = tuple(job.held[plan.outputs[number]] for number in plan.parts_of(rank))
        if entry == rank:
            job.results[rank] = parts
            return sent
        del self._jobs[entry]
        if parts:
            sent.append(Outgoing(to=entry, kind=Kind.RESULT, job=job.number, samples=job.samples, tensors=parts))
        return sent

    def results(self, number: int) -> dict[int, Any] | None:
        """All parts of the answer to an own job, by rank; the job is over then. ``None`` while some are missing."""
        job = self._jobs.get(self.plan.rank)
        if job is None or job.number != number or not self.plan.answering <= set(job.results):
            return None
        del self._jobs[self.plan.rank]
        return job.results

    def abandon(self, number: int) -> list[Outgoing]:
        """Give an own job up; what to tell the peers. Nothing if it is over."""
        job = self._jobs.get(self.plan.rank)
        if job is None or job.number != number:
            return []
        del self._jobs[self.plan.rank]
        return [Outgoing(to=peer, kind=Kind.CANCEL, job=number, samples=0) for peer in self.plan.peers]

    def fail(self, task: Task) -> None:
        """A task could not be computed: its job is over here. Its entry will give it up in time."""
        job = self._jobs.get(entry_of(task.job))
        if job is not None and job.number == task.job:
            del self._jobs[entry_of(task.job)]

    def restarted(self, entry: int) -> None:
        """A peer said HELLO: what entered there before is over, and its count may have begun anew."""
        self._jobs.pop(entry, None)
        self._newest.pop(entry, None)

    def oldest_seconds(self, now: float) -> float:
        """How long the oldest job has been here; 0 if there is none."""
        return max((now - job.since for job in self._jobs.values()), default=0.0)

    def __len__(self) -> int:
        """How many jobs are under way; at most as many as workers."""
        return len(self._jobs)

    def _open(self, entry: int, number: int, samples: int, now: float) -> _Job:
        self._order += 1
        job = _Job(number=number, samples=samples, order=self._order, since=now)
        self._jobs[entry] = job
        self._newest[entry] = number
        return job
