"""Peers that lie, hang, stop reading or come late: their connection ends or the fallback answers, and nothing else."""

from __future__ import annotations

import contextlib
import struct
import threading
from pathlib import Path

import pytest
from played_peer import PlayedPeer, knocked
from working_sets import WorkingSet, answer, images, tag_of, wait_for, working_set

from edgefolio_worker.protocol.expected import job_number
from edgefolio_worker.protocol.frames import HEADER_BYTES, Kind, encode_header
from edgefolio_worker.protocol.handshake import Refusal
from edgefolio_worker.serving.worker import Worker

INPUT_BYTES = 4 * 144


def alone(site: WorkingSet, **changes: float) -> Worker:
    """Worker 1, whose peer the test plays."""
    site.order(1, **changes)
    worker = site.start(1)
    wait_for(lambda: worker.status().set_number is not None and not worker.status().problem)
    return worker


@pytest.fixture
def site(tmp_path: Path) -> object:
    with working_set(tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"protocol": 2}, Refusal.PROTOCOL),
        ({"model": "another"}, Refusal.MODEL),
        ({"plan_sha256": "0" * 64}, Refusal.PLAN),
        ({"number": 8}, Refusal.SET),
        ({"workers": 3}, Refusal.WORKERS),
        ({"wire": "UInt8"}, Refusal.WIRE),
    ],
)
def test_whoever_is_of_something_else_is_refused_with_the_reason(
    site: WorkingSet, changes: dict[str, object], refusal: Refusal
) -> None:
    worker = alone(site)
    with PlayedPeer(site) as played:
        played.send(Kind.HELLO, played.hello(**changes))
        header, _ = played.receive()
        assert (header.kind, header.code) == (Kind.REFUSE, refusal)
        assert played.ends()
    reason = f"refused-{refusal.name.lower()}"
    wait_for(lambda: worker.status().ended.get(reason) == 1)
    assert worker.status().reason == reason
    assert tag_of(answer(worker, images(1))) == 1


@pytest.mark.parametrize("rank", [1, 2, -1])
def test_a_wrong_rank_ends_the_connection(site: WorkingSet, rank: int) -> None:
    worker = alone(site)
    with PlayedPeer(site) as played:
        played.send(Kind.HELLO, played.hello(rank=rank), sender=max(rank, 0))
        assert played.ends()
    wait_for(lambda: sum(worker.status().ended.values()) == 1)
    assert set(worker.status().ended) <= {"refused-rank", "sender"}


WRONG = {
    "another plan": {"plan": 1},
    "another set": {"number": 8},
    "another sender": {"sender": 1},
    "another entry": {"job": job_number(1, 10**7)},
    "no samples": {"samples": 0},
    "too many samples": {"samples": 17},
    "a length that is not the plan's": {"payload_bytes": INPUT_BYTES - 4},
    "a huge length": {"payload_bytes": 2**32 - 1},
    "flags": {"flags": 1},
}


@pytest.mark.parametrize("fields", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_field_ends_the_connection_and_is_counted(site: WorkingSet, fields: dict[str, int]) -> None:
    worker = alone(site)
    with PlayedPeer(site) as played:
        played.link()
        right = {"job": job_number(0, 10**7), "samples": 1, "payload_bytes": INPUT_BYTES}
        played.socket.sendall(encode_header(played.header(Kind.INPUT, **{**right, **fields})) + bytes(INPUT_BYTES))
        assert played.ends()
    wait_for(lambda: sum(worker.status().ended.values()) == 1)
    assert tag_of(answer(worker, images(1))) == 1
    # Whoever comes next and is right, is taken.
    with PlayedPeer(site) as played:
        played.link()
        wait_for(lambda: worker.status().peers[0].is_linked)


def test_every_byte_of_a_frame_may_come_alone(site: WorkingSet) -> None:
    alone(site)
    with PlayedPeer(site) as played:
        hello = played.hello()
        raw = encode_header(played.header(Kind.HELLO, payload_bytes=len(hello))) + hello
        for byte in raw:
            played.socket.sendall(bytes([byte]))
        assert played.receive()[0].kind is Kind.WELCOME


def test_frames_of_a_cancelled_job_come_late_and_end_nothing(site: WorkingSet) -> None:
    worker = alone(site)
    with PlayedPeer(site) as played:
        played.link()
        cancelled = played.begin(images(1))
        played.send(Kind.CANCEL, job=cancelled)
        maps = bytes(4 * 4 * 144)
        played.send(Kind.MAPS, maps, job=cancelled, samples=1, code=0)
        played.send(Kind.RESULT, bytes(16), job=job_number(1, 3), samples=1)
        job = played.begin(images(2))
        header, payload = played.receive_of(Kind.MAPS)
        while header.job != job:
            header, payload = played.receive_of(Kind.MAPS)
        assert len(payload) == 2 * len(maps)
        assert worker.status().ended == {}


def test_a_job_that_is_done_twice_ends_the_connection(site: WorkingSet) -> None:
    worker = alone(site)
    with PlayedPeer(site) as played:
        played.link()
        job = played.begin(images(1))
        played.send(Kind.INPUT, bytes(INPUT_BYTES), job=job, samples=1)
        assert played.ends()
    wait_for(lambda: worker.status().ended == {"twice": 1}, worker.status)


def answering_pings(played: PlayedPeer, *, age: int = 0) -> threading.Thread:
    """Answer pings and nothing else, until the connection ends."""

    def run() -> None:
        try:
            while True:
                header, _ = played.receive_of(Kind.PING)
                played.send(Kind.PONG, struct.pack("<II", age, 0), job=header.job)
        except (EOFError, OSError):
            return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_a_peer_that_answers_pings_and_computes_nothing_never_closes_the_circuit(site: WorkingSet) -> None:
    worker = alone(site, predicted_milliseconds=25.0)
    with PlayedPeer(site) as played:
        played.link()
        answering_pings(played)
        wait_for(lambda: worker.status().peers[0].round_trip_milliseconds is not None)
        assert tag_of(answer(worker, images(1))) == 1
        # Probe jobs were sent, and given up.
        wait_for(lambda: worker.status().peers[0].bytes_out > 2 * INPUT_BYTES)
        assert not worker.status().is_linked
    # Closed, or reset with pings unread.
    wait_for(lambda: worker.status().reason in ("closed", "lost"), worker.status)


def test_a_peer_whose_oldest_task_takes_longer_than_any_job_may_hangs(site: WorkingSet) -> None:
    worker = alone(site, abandon_milliseconds=500.0)
    with PlayedPeer(site) as played:
        played.link()
        answering_pings(played, age=501)
        wait_for(lambda: worker.status().reason == "hung", worker.status)
        assert tag_of(answer(worker, images(1))) == 1


def test_a_peer_that_answers_no_ping_is_silent_and_its_link_stays(site: WorkingSet) -> None:
    worker = alone(site)
    with PlayedPeer(site) as played:
        played.link()
        wait_for(lambda: worker.status().reason == "silent", worker.status)
        assert worker.status().peers[0].is_linked
        answering_pings(played)
        # The pings that waited are answered; the circuit stays open until probes are.
        wait_for(lambda: worker.status().peers[0].round_trip_milliseconds is not None)
        assert tag_of(answer(worker, images(1))) == 1


def test_a_peer_that_stops_reading_costs_bounded_memory_and_delays_nobody(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        worker = alone(site)
        with PlayedPeer(site) as played:
            played.link()
            hub = worker._hub
            assert hub is not None
            link = hub._links.of(0)
            assert link is not None
            largest = 0
            with contextlib.suppress(OSError):
                for _ in range(2000):
                    # Each job's maps are dropped for the next one's, as nobody reads them.
                    played.begin(images(16))
                    largest = max(largest, link.outbox.waiting_bytes)
            assert largest <= link.outbox._most
            # Nothing of it is read, answers to pings neither; in the end the kernel gives the connection up.
            wait_for(lambda: worker.status().reason in ("silent", "lost"), worker.status)
            assert tag_of(answer(worker, images(1))) == 1


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n" * 4, bytes(HEADER_BYTES), b"\x16\x03\x01" + bytes(60)])
def test_garbage_ends_its_connection_and_no_other(tmp_path: Path, garbage: bytes) -> None:
    with working_set(tmp_path) as site:
        first, second = site.start_all()
        for _ in range(20):
            # What was not read yet makes the end a reset.
            with knocked(site.ports[1]) as stranger, contextlib.suppress(ConnectionResetError):
                stranger.sendall(garbage)
                assert stranger.recv(100) == b""
        wait_for(lambda: second.status().ended.get("garbage") == 20, second.status)
        assert [tag_of(answer(worker, images(1))) for worker in (first, second)] == [9, 9]
