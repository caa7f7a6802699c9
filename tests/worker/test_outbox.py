"""Frames that wait: sent in any pieces, dropped once nobody wants them, and never more than the bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio_worker.network.outbox import Outbox, OutboxFullError
from edgefolio_worker.protocol.expected import job_number
from edgefolio_worker.protocol.frames import HEADER_BYTES, Header, Kind, decode_header


def header(kind: Kind, *, entry: int = 0, count: int = 1) -> Header:
    return Header(kind=kind, sender=0, plan=5, number=7, job=job_number(entry, count), samples=1)


class Taking:
    """A socket that takes so many bytes of each send, 0 for none now."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.taken = b""

    def send(self, piece: memoryview) -> int:
        size = min(len(piece), self.sizes.pop(0)) if self.sizes else len(piece)
        self.taken += bytes(piece[:size])
        return size


def frames_in(raw: bytes) -> list[tuple[Header, bytes]]:
    found = []
    while raw:
        head = decode_header(raw[:HEADER_BYTES])
        found.append((head, raw[HEADER_BYTES : HEADER_BYTES + head.payload_bytes]))
        raw = raw[HEADER_BYTES + head.payload_bytes :]
    return found


@given(st.lists(st.integers(0, 40_000), max_size=6), st.lists(st.integers(0, 20_000), max_size=40))
def test_frames_arrive_whole_whatever_each_send_takes(payloads: list[int], sizes: list[int]) -> None:
    outbox, taking = Outbox(most_bytes=10**6), Taking(sizes)
    for number, size in enumerate(payloads):
        # Entries differ, so that none takes the place of another.
        outbox.put(
            header(Kind.MAPS, entry=number), (bytes([number]) * (size // 2), bytes([number]) * (size - size // 2))
        )
    while not outbox.send(taking.send):
        pass
    assert [payload for _, payload in frames_in(taking.taken)] == [
        bytes([number]) * size for number, size in enumerate(payloads)
    ]
    assert (len(outbox), outbox.waiting_bytes) == (0, 0)
    assert outbox.sent_bytes == len(taking.taken)


@pytest.mark.parametrize("cut", range(HEADER_BYTES + 12))
def test_a_frame_that_was_cut_at_any_byte_goes_on_there(cut: int) -> None:
    outbox, taking = Outbox(most_bytes=1000), Taking([cut, 0] if cut else [0])
    outbox.put(header(Kind.INPUT), (b"twelve bytes",))
    assert not outbox.send(taking.send)
    # What was begun is not dropped, though its job is over: half a frame would end the connection.
    outbox.put(header(Kind.CANCEL))
    assert outbox.send(taking.send)
    assert [(head.kind, payload) for head, payload in frames_in(taking.taken)] == [
        (Kind.INPUT, b"twelve bytes"),
        (Kind.CANCEL, b""),
    ]


def test_what_belongs_to_an_older_job_of_the_entry_is_dropped() -> None:
    outbox, taking = Outbox(most_bytes=10**6), Taking([])
    outbox.put(header(Kind.MAPS, entry=1, count=4), (b"other entry",))
    outbox.put(header(Kind.INPUT, count=1), (b"old",))
    outbox.put(header(Kind.MAPS, count=1), (b"old",))
    outbox.put(header(Kind.INPUT, count=2), (b"new",))
    outbox.put(header(Kind.CANCEL, count=1))
    outbox.put(header(Kind.CANCEL, entry=1, count=4))
    assert outbox.send(taking.send)
    assert [(head.kind, payload) for head, payload in frames_in(taking.taken)] == [
        (Kind.INPUT, b"new"),
        (Kind.CANCEL, b""),
        (Kind.CANCEL, b""),
    ]


def test_pings_do_not_pile_up_and_the_bound_holds() -> None:
    outbox = Outbox(most_bytes=200)
    for count in range(100):
        outbox.put(header(Kind.PING, count=count))
    assert len(outbox) == 1
    outbox.put(header(Kind.MAPS, entry=1), (b"x" * 100,))
    with pytest.raises(OutboxFullError):
        outbox.put(header(Kind.MAPS, entry=2), (b"x" * 100,))
    assert outbox.waiting_bytes == 180
    outbox.bound(400)
    outbox.put(header(Kind.MAPS, entry=2), (b"x" * 100,))
