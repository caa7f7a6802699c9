"""Frames: every field arrives, in any pieces; what is not due ends the connection, and nothing else is raised."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_plans import document, documents, plans_of

from edgefolio_worker.protocol.expected import Expectation, entry_of, job_number
from edgefolio_worker.protocol.frames import (
    HEADER_BYTES,
    Frame,
    FrameReader,
    Header,
    Kind,
    ProtocolError,
    decode_header,
    encode_header,
    plan_number,
)
from edgefolio_worker.protocol.handshake import MOST_HELLO_BYTES, PROTOCOL, Hello, Refusal, refusal_of
from edgefolio_worker.protocol.plan import PlanError, WorkerPlan

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "split.md"
RAW = document(3, [(1, 1, 0), (1, 2, 0), (1, 0, 1)], depths=1, sums=(True, False))
PLAN = plans_of(RAW)[0]
HELLO = Hello(
    protocol=PROTOCOL,
    model="digits",
    plan_sha256=PLAN.sha256,
    number=7,
    rank=1,
    workers=3,
    wire="UInt8",
    max_samples=16,
)

headers = st.builds(
    Header,
    kind=st.sampled_from(Kind),
    sender=st.integers(0, 255),
    plan=st.integers(0, 2**64 - 1),
    number=st.integers(0, 2**32 - 1),
    code=st.integers(0, 2**16 - 1),
    job=st.integers(0, 2**64 - 1),
    samples=st.integers(0, 2**16 - 1),
    payload_bytes=st.integers(0, 2**32 - 1),
)


def linked(peer: int = 1, plan: WorkerPlan = PLAN) -> Expectation:
    return Expectation(plan=plan, number=7, max_samples=16, peer=peer, is_linked=True)


def header(kind: Kind, **fields: int) -> Header:
    return Header(**{"kind": kind, "sender": 1, "plan": plan_number(PLAN.sha256), "number": 7, **fields})


#: What worker 1 may send to worker 0.
GOOD = [
    header(Kind.INPUT, job=job_number(1, 5), samples=2, payload_bytes=32),
    header(Kind.MAPS, job=job_number(1, 5), samples=2, payload_bytes=12),
    header(Kind.MAPS, job=job_number(0, 5), samples=16, payload_bytes=96),
    header(Kind.MAPS, job=job_number(2, 5), samples=1, payload_bytes=6),
    header(Kind.RESULT, job=job_number(0, 5), samples=1, payload_bytes=12),
    header(Kind.CANCEL, job=job_number(1, 5)),
    header(Kind.PING, job=3),
    header(Kind.PONG, job=3, payload_bytes=8),
    header(Kind.BYE),
]


def read(reader: FrameReader, raw: bytes, cut: Callable[[int], int] = lambda left: left) -> list[Frame]:
    found = []
    while raw:
        room = reader.room
        piece = raw[: min(len(room), max(1, cut(len(raw))))]
        room[: len(piece)] = piece
        frame = reader.wrote(len(piece))
        raw = raw[len(piece) :]
        if frame is not None:
            found.append(frame)
    return found


@given(headers)
def test_a_header_arrives_as_it_was_sent(sent: Header) -> None:
    raw = encode_header(sent)
    assert len(raw) == HEADER_BYTES == 40
    assert decode_header(raw) == sent


@given(headers, st.integers(0, HEADER_BYTES * 8 - 1))
def test_a_flipped_bit_is_never_another_header(sent: Header, bit: int) -> None:
    raw = bytearray(encode_header(sent))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProtocolError, match="garbage"):
        decode_header(raw)


@given(st.lists(st.tuples(st.sampled_from(GOOD), st.integers(0, 2**32)), max_size=5), st.data())
def test_frames_arrive_whole_in_any_pieces(sent: list[tuple[Header, int]], data: st.DataObject) -> None:
    payloads = [seed.to_bytes(8, "little") * 100 for _, seed in sent]
    stream = b"".join(
        encode_header(each) + payload[: each.payload_bytes] for (each, _), payload in zip(sent, payloads, strict=True)
    )
    frames = read(FrameReader(linked().due), stream, lambda left: data.draw(st.integers(1, left)))
    assert [frame.header for frame in frames] == [each for each, _ in sent]
    assert [bytes(frame.payload) for frame in frames] == [
        payload[: each.payload_bytes] for (each, _), payload in zip(sent, payloads, strict=True)
    ]


def test_partial_writes_at_every_byte_of_a_frame() -> None:
    sent = GOOD[1]
    stream = encode_header(sent) + b"m" * sent.payload_bytes
    for at in range(1, len(stream)):
        reader = FrameReader(linked().due)
        assert read(reader, stream[:at]) == []
        (frame,) = read(reader, stream[at:])
        assert (frame.header, bytes(frame.payload)) == (sent, b"m" * 12)


@given(st.binary(max_size=400), st.booleans())
def test_bytes_of_strangers_end_the_connection_and_raise_nothing_else(raw: bytes, is_linked: bool) -> None:
    due = linked().due if is_linked else replace(linked(), peer=None, is_linked=False).due
    found: list[Frame] = []
    with contextlib.suppress(ProtocolError):
        found = read(FrameReader(due), raw)
    assert found == []


@given(headers, st.sampled_from([None, 1]), st.booleans())
def test_no_header_makes_room_for_more_than_is_due(sent: Header, peer: int | None, is_linked: bool) -> None:
    expectation = replace(linked(), peer=peer, is_linked=is_linked and peer is not None)
    reader = FrameReader(expectation.due)
    reader.room[:HEADER_BYTES] = encode_header(sent)
    is_taken = False
    with contextlib.suppress(ProtocolError):
        reader.wrote(HEADER_BYTES)
        is_taken = True
    # What this plan makes due is shorter than the longest HELLO.
    assert not (is_taken and sent.payload_bytes > MOST_HELLO_BYTES)
    assert len(reader.room) <= MOST_HELLO_BYTES


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.kind.name)
def test_each_wrong_field_of_a_right_header_is_refused(good: Header) -> None:
    assert good.payload_bytes in linked().due(good)
    of_job = good.kind not in (Kind.PING, Kind.PONG, Kind.BYE)
    wrong = [
        (replace(good, sender=2), "sender"),
        (replace(good, plan=good.plan ^ 1), "plan"),
        (replace(good, number=8), "set"),
        (replace(good, payload_bytes=good.payload_bytes + 1), "length"),
        (replace(good, kind=Kind.HELLO), "order"),
        (replace(good, kind=Kind.WELCOME), "order"),
    ]
    if of_job:
        wrong.append((replace(good, job=job_number(3, 5)), "job"))
    if good.kind in (Kind.INPUT, Kind.CANCEL):
        wrong.append((replace(good, job=job_number(2, 5)), "job"))
    if good.kind is Kind.RESULT:
        wrong.append((replace(good, job=job_number(1, 5)), "job"))
    if good.kind is Kind.MAPS:
        wrong.append((replace(good, code=1), "exchange"))
    if of_job and good.kind is not Kind.CANCEL:
        wrong += [(replace(good, samples=samples), "samples") for samples in (0, 17)]
        wrong.append((replace(good, samples=3 if good.samples != 3 else 4), "length"))
    for sent, reason in wrong:
        reader = FrameReader(linked().due)
        with pytest.raises(ProtocolError) as error:
            read(reader, encode_header(sent))
        assert error.value.reason == reason, sent


def test_only_a_handshake_comes_first() -> None:
    unknown, asked = replace(linked(), peer=None, is_linked=False), replace(linked(), is_linked=False)
    for kind in Kind:
        sent = header(kind, payload_bytes=0 if kind is Kind.REFUSE else 100)
        for expectation, right in ((unknown, {Kind.HELLO}), (asked, {Kind.WELCOME, Kind.REFUSE})):
            if kind in right:
                assert sent.payload_bytes in expectation.due(sent)
                continue
            with pytest.raises(ProtocolError, match="order"):
                expectation.due(sent)
    with pytest.raises(ProtocolError, match="length"):
        read(FrameReader(unknown.due), encode_header(header(Kind.HELLO, payload_bytes=MOST_HELLO_BYTES + 1)))


def test_a_hello_is_canonical_and_says_why_it_is_refused() -> None:
    assert Hello.from_bytes(HELLO.to_bytes()) == HELLO
    mine = replace(HELLO, rank=0)
    assert refusal_of(HELLO, mine=mine) is None
    assert refusal_of(HELLO, mine=mine, rank=1) is None
    others = {
        Refusal.PROTOCOL: replace(HELLO, protocol=2),
        Refusal.MODEL: replace(HELLO, model="other"),
        Refusal.PLAN: replace(HELLO, plan_sha256="0" * 64),
        Refusal.SET: replace(HELLO, number=8),
        Refusal.WORKERS: replace(HELLO, workers=2),
        Refusal.WIRE: replace(HELLO, wire="Float32"),
        Refusal.RANK: replace(HELLO, rank=0),
    }
    assert {refusal_of(peer, mine=mine) for peer in others.values()} == set(others)
    assert refusal_of(replace(HELLO, rank=3), mine=mine) is Refusal.RANK
    assert refusal_of(replace(HELLO, rank=2), mine=mine, rank=1) is Refusal.RANK


@given(st.binary(max_size=300) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_bytes_pass_for_a_hello(raw: bytes | str) -> None:
    with pytest.raises(ProtocolError, match="hello"):
        Hello.from_bytes(raw.encode() if isinstance(raw, str) else raw)


def test_a_hello_of_other_types_or_another_form_is_refused() -> None:
    document_of = json.loads(HELLO.to_bytes())
    changes = [
        {"rank": True},
        {"rank": "1"},
        {"model": 3},
        {"maxSamples": 0},
        {"set": 1.0},
        {"more": 1},
        {"workers": None},
    ]
    for change in changes:
        text = json.dumps({**document_of, **change}, sort_keys=True, separators=(",", ":"))
        with pytest.raises(ProtocolError, match="hello"):
            Hello.from_bytes(text.encode())
    for missing in document_of:
        text = json.dumps({key: value for key, value in document_of.items() if key != missing})
        with pytest.raises(ProtocolError, match="hello"):
            Hello.from_bytes(text.encode())
    with pytest.raises(ProtocolError, match="canonical"):
        Hello.from_bytes(json.dumps(document_of).encode())


@given(documents())
def test_what_one_worker_may_send_the_other_expects(raw: bytes) -> None:
    plans = plans_of(raw)
    for plan in plans:
        for transfer in plan.outgoing:
            sent = Header(
                kind=Kind.MAPS,
                sender=plan.rank,
                plan=plan_number(plan.sha256),
                number=7,
                code=transfer.exchange,
                job=job_number(plan.rank, 1),
                samples=4,
                payload_bytes=plan.transfer_bytes(transfer, 4),
            )
            receiver = linked(plan.rank, plans[transfer.receiver])
            assert sent.payload_bytes in receiver.due(sent)
            assert receiver.transfer(sent) == transfer


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"workers": 0}, "none of them is 0"),
        ({"wire": "BFloat16"}, "unknown"),
        ({"outputs": ["logits"]}, "outputs"),
        ({"exchanges": None}, "cannot be read"),
        ({"shards": []}, "cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_followed_says_so(change: dict[str, object], problem: str) -> None:
    raw = json.dumps({**json.loads(RAW), **change}).encode()
    with pytest.raises(PlanError, match=problem):
        WorkerPlan.read(raw, rank=0, input_shape=(4,), output_shapes=((3,), (2,)))
    with pytest.raises(PlanError, match="not fixed"):
        WorkerPlan.read(RAW, rank=0, input_shape=(-1,), output_shapes=((3,), (2,)))


def test_jobs_carry_their_entry() -> None:
    assert (entry_of(job_number(3, 2**56 + 9)), job_number(3, 9)) == (3, 3 << 56 | 9)
    with pytest.raises(struct.error):
        encode_header(header(Kind.PING, job=2**64))


def test_the_vectors_in_the_documentation_are_what_is_sent() -> None:
    """Docs lead with a table of vectors: hexadecimal bytes and what they are, in the order of the fields."""
    found = re.findall(r"^\| `([A-Z]+)` \| `([^`]*)` \| `([0-9a-f ]+)` \|$", DOCUMENTATION.read_text(), re.MULTILINE)
    assert {kind for kind, _, _ in found} == set(Kind.__members__)
    for kind, fields, digits in found:
        named = dict(field.split("=") for field in fields.split())
        plan = named.pop("plan")
        sent = Header(
            kind=Kind[kind], plan=plan_number(plan + "0" * 48), **{key: int(value, 0) for key, value in named.items()}
        )
        raw = bytes.fromhex(digits.replace(" ", ""))
        assert encode_header(sent) == raw, encode_header(sent).hex()
        assert decode_header(raw) == sent


def test_the_plan_says_how_far_answers_to_its_probe_may_be() -> None:
    document = json.loads(RAW)
    plain = WorkerPlan.read(RAW, rank=0, input_shape=(4,), output_shapes=((3,), (2,)))
    assert (plain.probe_tolerance, plain.probe_levels) == (1e-3, 1)

    def read(**probe: float) -> WorkerPlan:
        shards = [{**document["shards"][0], "probe": probe}, *document["shards"][1:]]
        raw = json.dumps({**document, "shards": shards}).encode()
        return WorkerPlan.read(raw, rank=0, input_shape=(4,), output_shapes=((3,), (2,)))

    # Quantized shards need more.
    found = read(relativeTolerance=0.008, levels=2)
    assert (found.probe_tolerance, found.probe_levels) == (0.008, 2)
    for wrong in ({"relativeTolerance": 2.0}, {"relativeTolerance": 0.0}, {"levels": 256}):
        with pytest.raises(PlanError, match="its probe may differ by"):
            read(**wrong)
