"""Jobs under any schedule: whatever order frames arrive in, every job ends, and its answer is made of its own parts."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from dataclasses import field as attribute
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_plans import document, documents, gives, plans_of, reads

from edgefolio_worker.protocol.expected import Expectation, entry_of, job_number
from edgefolio_worker.protocol.frames import Header, Kind, ProtocolError, plan_number
from edgefolio_worker.protocol.jobs import JobTable, Outgoing, Task
from edgefolio_worker.protocol.plan import WorkerPlan

SAMPLES = 2


def computed(rank: int, segment: int, name: str, inputs: dict[str, object]) -> tuple[object, ...]:
    """The symbolic value of a tensor: who computed it, and of what."""
    return (rank, segment, name, tuple(sorted(inputs.items())))


def answer_of(plans: list[WorkerPlan], values: object) -> dict[int, tuple[object, ...]]:
    """All parts of the answer, computed one depth after the other."""
    held: list[dict[str, object]] = [{"input": values} for _ in plans]
    for segment in range(len(plans[0].segments)):
        for plan in plans:
            mine = held[plan.rank]
            given_ = {name: mine[name] for name in reads(plan)[segment]}
            mine.update({name: computed(plan.rank, segment, name, given_) for name in gives(plan, segment)})
        for plan in plans:
            for each in plan.outgoing:
                if each.exchange == segment:
                    held[each.receiver][each.received] = held[plan.rank][each.sent]
    return {
        plan.rank: tuple(held[plan.rank][plan.outputs[number]] for number in plan.parts_of(plan.rank))
        for plan in plans
        if plan.rank in plan.answering
    }


@dataclass
class Cluster:
    """Workers whose frames wait on links until a schedule delivers them."""

    plans: list[WorkerPlan]
    tables: list[JobTable] = attribute(default_factory=list)
    running: dict[int, Task] = attribute(default_factory=dict)
    links: dict[tuple[int, int], deque[Outgoing]] = attribute(default_factory=dict)
    own: dict[int, tuple[int, str]] = attribute(default_factory=dict)
    begun: int = 0

    def __post_init__(self) -> None:
        self.tables = [JobTable(plan, inputs=reads(plan)) for plan in self.plans]
        self.links = {(plan.rank, peer): deque() for plan in self.plans for peer in plan.peers}

    def post(self, rank: int, frames: list[Outgoing]) -> None:
        for frame in frames:
            self.links[rank, frame.to].append(frame)

    def begin(self, rank: int) -> None:
        self.begun += 1
        values = f"input {self.begun}"
        number, frames = self.tables[rank].begin(SAMPLES, values)
        self.own[rank] = (number, values)
        self.post(rank, frames)

    def abandon(self, rank: int) -> None:
        self.post(rank, self.tables[rank].abandon(self.own.pop(rank)[0]))

    def start(self, rank: int) -> None:
        task = self.tables[rank].next_task()
        if task is not None:
            self.running[rank] = task

    def finish(self, rank: int) -> None:
        task, plan = self.running.pop(rank), self.plans[rank]
        outputs = {name: computed(rank, task.segment, name, dict(task.inputs)) for name in gives(plan, task.segment)}
        self.post(rank, self.tables[rank].complete(task, outputs))

    def deliver(self, sender: int, receiver: int) -> None:
        frame, plan = self.links[sender, receiver].popleft(), self.plans[receiver]
        expectation = Expectation(plan=plan, number=1, max_samples=SAMPLES, peer=sender, is_linked=True)
        header = Header(
            kind=frame.kind,
            sender=sender,
            plan=plan_number(plan.sha256),
            number=1,
            code=frame.code,
            job=frame.job,
            samples=frame.samples,
        )
        assert len(expectation.due(header)) == 1
        name = expectation.transfer(header).received if frame.kind is Kind.MAPS else None
        payload = frame.tensors if frame.kind is Kind.RESULT else next(iter(frame.tensors), None)
        self.tables[receiver].receive(header, payload, name=name)

    def collect(self) -> list[tuple[int, object, dict[int, object]]]:
        found = []
        for rank, (number, values) in list(self.own.items()):
            results = self.tables[rank].results(number)
            if results is not None:
                del self.own[rank]
                found.append((rank, values, results))
        return found

    def moves(self, *, may_begin: bool) -> list[tuple[str, tuple[int, ...]]]:
        ranks = range(len(self.plans))
        waiting = [ends for ends, frames in self.links.items() if frames]
        found: list[tuple[str, tuple[int, ...]]] = [("deliver", ends) for ends in waiting]
        found += [("finish", (rank,)) for rank in self.running]
        found += [("start", (rank,)) for rank in ranks if rank not in self.running]
        if may_begin:
            found += [("begin", (rank,)) for rank in ranks if rank not in self.own]
            found += [("abandon", (rank,)) for rank in self.own]
        return found


@settings(max_examples=300, deadline=None)
@given(documents(), st.randoms(use_true_random=False), st.integers(0, 60))
def test_any_order_of_frames_ends_every_job_with_its_own_answer(raw: bytes, chance: object, busy: int) -> None:
    cluster = Cluster(plans_of(raw))
    answered = 0

    def step(*, may_begin: bool) -> None:
        nonlocal answered
        moves = cluster.moves(may_begin=may_begin)
        move, ranks = chance.choice(moves)  # type: ignore[attr-defined]
        getattr(cluster, move)(*ranks)
        for _, values, results in cluster.collect():
            wanted = answer_of(cluster.plans, values)
            # Parts of others may have come as well; those that make the answer are whole, and of this very input.
            assert {rank: results[rank] for rank in wanted} == wanted
            answered += 1
        assert all(len(table) <= len(cluster.plans) for table in cluster.tables)

    for _ in range(busy):
        step(may_begin=True)
    for rank in range(len(cluster.plans)):
        if rank not in cluster.own:
            cluster.begin(rank)
    waiting = len(cluster.own)
    before = answered
    for _ in range(20_000):
        if not cluster.own:
            break
        step(may_begin=False)
    assert not cluster.own
    assert answered - before == waiting == len(cluster.plans)


def table_of(rank: int = 0, **options: object) -> JobTable:
    plan = plans_of(document(3, [(1, 1, 0), (1, 2, 0), (1, 0, 1)], depths=1, sums=(True, False)))[rank]
    return JobTable(plan, inputs=reads(plan), **options)  # type: ignore[arg-type]


def sent(kind: Kind, sender: int, job: int, *, samples: int = SAMPLES) -> Header:
    return Header(kind=kind, sender=sender, plan=0, number=1, job=job, samples=samples)


def test_the_oldest_job_is_computed_first_and_one_that_lacks_maps_holds_nobody_up() -> None:
    table = table_of()
    first, second = job_number(1, 1), job_number(2, 1)
    for entry, job in ((1, first), (2, second)):
        table.receive(sent(Kind.INPUT, entry, job), f"of {entry}")
    tasks = [table.next_task(), table.next_task()]
    assert [(task.job, task.segment) for task in tasks if task] == [(first, 0), (second, 0)]
    assert table.next_task() is None
    for task in tasks:
        assert task is not None
        (frame,) = table.complete(task, {"own0": 1, "x1_to_1": 2})
        assert (frame.to, frame.kind, frame.code, frame.tensors) == (1, Kind.MAPS, 0, (2,))
    for sender in (1, 2):
        assert table.next_task() is None
        table.receive(sent(Kind.MAPS, sender, second), "maps", name=f"x1_from_{sender}")
    task = table.next_task()
    assert task is not None
    assert (task.job, task.inputs) == (second, {"own0": 1, "x1_from_1": "maps", "x1_from_2": "maps"})
    (frame,) = table.complete(task, {"logits": 5, "score": 6})
    assert (frame.to, frame.kind, frame.job, frame.tensors) == (2, Kind.RESULT, second, (5, 6))


def test_what_comes_late_is_dropped_and_what_comes_twice_ends_the_connection() -> None:
    table = table_of()
    old, new = job_number(1, 4), job_number(1, 5)
    # Maps of another worker may overtake the input.
    assert table.receive(sent(Kind.MAPS, 2, new), "maps", name="x1_from_2")
    assert not table.receive(sent(Kind.INPUT, 1, old), "old")
    assert table.receive(sent(Kind.INPUT, 1, new), "new")
    for header, name in ((sent(Kind.INPUT, 1, new), None), (sent(Kind.MAPS, 2, new), "x1_from_2")):
        with pytest.raises(ProtocolError, match="twice"):
            table.receive(header, "again", name=name)
    with pytest.raises(ProtocolError, match="samples"):
        table.receive(sent(Kind.MAPS, 1, new, samples=3), "maps", name="x1_from_1")
    task = table.next_task()
    assert task is not None
    assert task.inputs == {"input": "new"}
    assert table.receive(sent(Kind.CANCEL, 1, new), None)
    assert table.complete(task, {"own0": 1, "x1_to_1": 2}) == []
    assert not table.receive(sent(Kind.MAPS, 1, new), "maps", name="x1_from_1")
    assert not table.receive(sent(Kind.CANCEL, 1, new), None)
    assert len(table) == 0
    # A cancellation that overtakes everything is remembered.
    assert not table.receive(sent(Kind.CANCEL, 1, new + 1), None)
    assert not table.receive(sent(Kind.INPUT, 1, new + 1), "late")


def test_an_own_job_is_answered_once_and_its_late_results_are_dropped() -> None:
    table = table_of(first_count=9)
    job, frames = table.begin(SAMPLES, "mine", now=10.0)
    assert job == job_number(0, 9)
    assert [(frame.to, frame.kind, frame.tensors) for frame in frames] == [
        (1, Kind.INPUT, ("mine",)),
        (2, Kind.INPUT, ("mine",)),
    ]
    assert table.oldest_seconds(10.5) == 0.5
    assert not table.receive(sent(Kind.RESULT, 1, job - 1), "old")
    assert table.receive(sent(Kind.RESULT, 1, job), "one")
    with pytest.raises(ProtocolError, match="twice"):
        table.receive(sent(Kind.RESULT, 1, job), "one")
    assert table.receive(sent(Kind.RESULT, 2, job), "two")
    assert table.results(job) is None
    cancelled = table.abandon(job)
    assert [(frame.to, frame.kind, frame.job) for frame in cancelled] == [(1, Kind.CANCEL, job), (2, Kind.CANCEL, job)]
    assert table.abandon(job) == []
    assert table.results(job) is None
    assert table.oldest_seconds(11.0) == 0.0
    # Nobody else begins a job here.
    assert not table.receive(sent(Kind.MAPS, 1, job + 7), "maps", name="x1_from_1")
    assert len(table) == 0


def test_a_peer_that_starts_anew_may_count_from_one_again() -> None:
    table = table_of()
    assert table.receive(sent(Kind.INPUT, 1, job_number(1, 900)), "before")
    assert not table.receive(sent(Kind.INPUT, 1, job_number(1, 1)), "after")
    table.restarted(1)
    assert table.receive(sent(Kind.INPUT, 1, job_number(1, 1)), "after")
    assert len(table) == 1


def test_at_most_one_job_of_each_entry_is_held() -> None:
    table = table_of()
    for count in range(1, 100):
        for entry in (1, 2):
            assert table.receive(sent(Kind.INPUT, entry, job_number(entry, count)), bytes(10))
        table.begin(SAMPLES, b"")
    assert len(table) == 3
    found = reduce(lambda known, _: [*known, table.next_task()], range(4), [])
    assert sorted(entry_of(task.job) for task in found if task) == [0, 1, 2]


def test_bytes_of_a_job_are_those_of_its_frames() -> None:
    raw = document(3, [(1, 1, 0), (1, 2, 0), (1, 0, 1)], depths=1, sums=(True, False))
    zero, one, two = plans_of(raw)
    assert json.loads(raw)["workers"] == 3
    # Input 4 floats; maps of two slots of three; results: 3 and 2 floats of worker 0, 3 of the others.
    assert [zero.input_bytes(2), zero.result_bytes(0, 2), zero.result_bytes(1, 2)] == [32, 40, 24]
    # Worker 1 sends worker 0 two slots of three numbers, worker 2 one; each either the input or its result besides.
    assert [plan.most_bytes_to(0, 2) for plan in (one, two)] == [12 + 32, 6 + 32]
    assert zero.most_bytes_to(1, 2) == 12 + 40
