"""The plan of a split model: who computes what, what travels, and the files of each worker.

Its digest vouches for the files, whose digests stand in it. A reader can see from it alone that every channel has one
owner and every received element one sender.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from edgefolio.errors import IntegrityError
from edgefolio.records.base import Digest, Record
from edgefolio.untrusted.json_document import Count, Line, Magnitude, Percent, Positive, parse_json

__all__ = [
    "MAXIMUM_PLAN_BYTES",
    "MOST_WORKERS",
    "PLAN_VERSION",
    "Certificate",
    "Layout",
    "PlannedExchange",
    "PlannedFile",
    "PlannedProbe",
    "PlannedSegment",
    "PlannedShard",
    "SplitPlan",
    "Transfer",
    "parse_plan",
    "plan_schema",
]

PLAN_VERSION: Final = "edgefolio.dev/split-plan/v1"
MOST_WORKERS = 8
#: Larger plans are refused unread.
MAXIMUM_PLAN_BYTES = 16 << 20
#: Owner of a slot that every worker has.
EVERYBODY = -1
_LARGEST_AXIS = 1 << 22
#: Tensors of a shard's segments; written into ONNX, so letters, digits and a few signs.
TensorName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./:-]{1,256}$", max_length=256)]
Rank = Annotated[int, Field(ge=0, lt=MOST_WORKERS)]
#: A file of a shard: ONNX holds at most 2 GiB.
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
Slot = Annotated[int, Field(ge=0, lt=_LARGEST_AXIS)]


#: How layers are divided: all by one way, or up to a layer by rows and behind it by channels.
Layout = Literal["Channels", "Rows", "RowsThenChannels"]


class Transfer(Record):
    """What one worker sends another at an exchange: slots, ascending, as one tensor.

    The sender's segments give ``sent``, the receiver's take it as ``received``.
    """

    sender: Rank
    receiver: Rank
    slots: Annotated[tuple[Slot, ...], Field(min_length=1, max_length=_LARGEST_AXIS)]
    sent: TensorName
    received: TensorName

    @model_validator(mode="after")
    def _is_ordered(self) -> Transfer:
        if self.sender == self.receiver:
            raise ValueError(f"worker {self.sender} sends to itself")
        if any(left >= right for left, right in pairwise(self.slots)):
            raise ValueError("slots are not in ascending order, each once")
        return self


class PlannedExchange(Record):
    """A point at which workers send maps to each other. ``owners[slot]`` computes the slot, -1 stands for everybody.

    ``elements`` numbers a sample stand for one slot. ``depth`` counts the exchanges on the way from the input up to
    this one: those of one depth happen together.
    """

    name: Annotated[str, Field(pattern=r"^x[0-9]{1,4}$")]
    place: Line
    kind: Literal["send", "gather"]
    depth: Annotated[int, Field(ge=1, le=1024)]
    elements: Positive
    owners: Annotated[tuple[Annotated[int, Field(ge=-1, lt=MOST_WORKERS)], ...], Field(min_length=1)]
    transfers: Annotated[tuple[Transfer, ...], Field(max_length=MOST_WORKERS * MOST_WORKERS)]

    @model_validator(mode="after")
    def _has_one_sender_each(self) -> PlannedExchange:
        pairs = [(transfer.sender, transfer.receiver) for transfer in self.transfers]
        if len(set(pairs)) != len(pairs):
            raise ValueError(f"exchange {self.name}: two transfers between the same workers")
        for transfer in self.transfers:
            if transfer.slots[-1] >= len(self.owners):
                raise ValueError(f"exchange {self.name}: slot {transfer.slots[-1]} of {len(self.owners)}")
            wrong = next((slot for slot in transfer.slots if self.owners[slot] != transfer.sender), None)
            if wrong is not None:
                raise ValueError(
                    f"exchange {self.name}: slot {wrong} belongs to {self.owners[wrong]}, not to {transfer.sender}"
                )
        return self

    def elements_into(self, rank: int) -> int:
        """Numbers a sample that a worker receives here."""
        return self.elements * sum(len(each.slots) for each in self.transfers if each.receiver == rank)


class PlannedSegment(Record):
    """One ONNX file of a worker: what it computes between two exchanges. ``depth`` exchanges lie before it."""

    file: Annotated[str, Field(pattern=r"^shard-[0-7]/segment-[0-9]{1,3}\.onnx$")]
    depth: Annotated[int, Field(ge=0, le=1024)]
    sha256: Digest
    size_bytes: Size


class PlannedProbe(Record):
    """Inputs and expected outputs of every segment of a worker, in one safetensors file: ``<segment>/in/<tensor>`` and

    ``<segment>/out/<tensor>``. Floats may differ by ``relative_tolerance`` of the largest value of their tensor, bytes
    of the wire by ``levels``.
    """

    file: Annotated[str, Field(pattern=r"^shard-[0-7]/probe\.safetensors$")]
    sha256: Digest
    size_bytes: Size
    relative_tolerance: Annotated[float, Field(gt=0, le=1)]
    levels: Annotated[int, Field(ge=0, le=255)]


#: A file that a plan names.
PlannedFile = PlannedSegment | PlannedProbe


class PlannedShard(Record):
    """What one worker loads."""

    rank: Rank
    segments: Annotated[tuple[PlannedSegment, ...], Field(min_length=1, max_length=1000)]
    parameters: Count
    macs: Count
    #: Absent from plans that are not published.
    probe: Annotated[PlannedProbe | None, Field(exclude_if=lambda value: value is None)] = None

    @property
    def files(self) -> tuple[PlannedFile, ...]:
        """All of its files."""
        return (*self.segments, *([] if self.probe is None else [self.probe]))

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)

    @model_validator(mode="after")
    def _names_its_files(self) -> PlannedShard:
        wanted = [f"shard-{self.rank}/segment-{number}.onnx" for number in range(len(self.segments))]
        if [segment.file for segment in self.segments] != wanted:
            raise ValueError(f"shard {self.rank}: its files are not {wanted[0]} and so on, in order")
        if self.probe is not None and self.probe.file != f"shard-{self.rank}/probe.safetensors":
            raise ValueError(f"shard {self.rank}: its probe is not shard-{self.rank}/probe.safetensors")
        depths = [segment.depth for segment in self.segments]
        if any(left >= right for left, right in pairwise(depths)):
            raise ValueError(f"shard {self.rank}: its segments are not in order of depth")
        return self


class Certificate(Record):
    """How far the split's outputs are from the dense model's, on held-out samples without labels.

    ``certified_percent`` of the samples keep their first class for certain: the margin between the dense model's two
    largest outputs is more than twice the largest error of the sample.
    """

    relative_error: Magnitude
    certified_percent: Percent
    agreement_percent: Percent
    samples: Positive


class SplitPlan(Record):
    """A model over several workers. ``combination`` says how the entry makes the answer of the workers' outputs."""

    schema_version: Literal["edgefolio.dev/split-plan/v1"] = PLAN_VERSION
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)]
    shares_percent: tuple[Annotated[int, Field(ge=1, le=100)], ...]
    layout: Layout
    #: The last layer that is divided by rows, where channels follow.
    rows_until: Annotated[Line | None, Field(exclude_if=lambda value: value is None)] = None
    wire: Literal["Float32", "UInt8"]
    #: Int8: what shards compute between exchanges is quantized.
    precision: Annotated[Literal["Float32", "Int8"], Field(exclude_if=lambda value: value == "Float32")] = "Float32"
    input: TensorName
    outputs: Annotated[tuple[TensorName, ...], Field(min_length=1, max_length=16)]
    combination: Annotated[tuple[Literal["Sum", "First"], ...], Field(min_length=1, max_length=16)]
    exchanges: Annotated[tuple[PlannedExchange, ...], Field(max_length=1024)]
    shards: tuple[PlannedShard, ...]
    certificate: Certificate | None = None
    notes: Annotated[tuple[Line, ...], Field(max_length=256)] = ()

    @field_validator("exchanges")
    @classmethod
    def _are_named_once(cls, exchanges: tuple[PlannedExchange, ...]) -> tuple[PlannedExchange, ...]:
        if len({exchange.name for exchange in exchanges}) != len(exchanges):
            raise ValueError("two exchanges of one name")
        return exchanges

    @model_validator(mode="after")
    def _fits_together(self) -> SplitPlan:
        if len(self.shares_percent) != self.workers or sum(self.shares_percent) != 100:
            raise ValueError(f"sharesPercent are not {self.workers} numbers that sum to 100")
        if [shard.rank for shard in self.shards] != list(range(self.workers)):
            raise ValueError(f"shards are not those of workers 0 to {self.workers - 1}")
        if (self.rows_until is None) == (self.layout == "RowsThenChannels"):
            raise ValueError(f"rowsUntil does not go with the layout {self.layout}")
        if len(self.combination) != len(self.outputs):
            raise ValueError("combination has not one entry for each output")
        for exchange in self.exchanges:
            ranks = [*exchange.owners, *(rank for each in exchange.transfers for rank in (each.sender, each.receiver))]
            if max(ranks) >= self.workers:
                raise ValueError(f"exchange {exchange.name} names worker {max(ranks)} of {self.workers}")
        transfers = [transfer for exchange in self.exchanges for transfer in exchange.transfers]
        for names in (
            [(transfer.sender, transfer.sent) for transfer in transfers],
            [(transfer.receiver, transfer.received) for transfer in transfers],
        ):
            if len(set(names)) != len(names):
                raise ValueError("two transfers use one tensor of a worker")
        return self

    @property
    def files(self) -> tuple[PlannedFile, ...]:
        """The files of all shards."""
        return tuple(file for shard in self.shards for file in shard.files)

    @property
    def element_bytes(self) -> int:
        """Bytes of a number on the wire."""
        return 4 if self.wire == "Float32" else 1

    def bytes_into(self, rank: int) -> int:
        """Bytes a sample that a worker receives at all exchanges."""
        return self.element_bytes * sum(exchange.elements_into(rank) for exchange in self.exchanges)

    @property
    def synchronisations(self) -> int:
        """How often the workers wait for each other; exchanges of one depth count once."""
        return len({exchange.depth for exchange in self.exchanges if exchange.transfers})

    def to_bytes(self) -> bytes:
        """As published: equal plans give equal bytes."""
        return (self.model_dump_json(by_alias=True) + "\n").encode()

    @property
    def sha256(self) -> str:
        """The digest of the published bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def plan_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that a published plan follows."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": PLAN_VERSION,
        **SplitPlan.model_json_schema(by_alias=True, mode="serialization"),
    }


def parse_plan(raw: bytes, *, location: str) -> SplitPlan:
    """A plan from its bytes. Raises :class:`~edgefolio.errors.IntegrityError` for anything that is none."""
    if len(raw) > MAXIMUM_PLAN_BYTES:
        raise IntegrityError(f"the plan is larger than {MAXIMUM_PLAN_BYTES} bytes.", location=location)
    document = parse_json(raw, what="plan", location=location)
    try:
        return SplitPlan.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise IntegrityError(f"no plan of a split: {place}: {first['msg']}.", location=location) from error
