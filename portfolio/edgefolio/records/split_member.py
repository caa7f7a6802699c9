"""What a manifest says of a split member: a variant that several nodes compute together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgefolio.records.base import Record
from edgefolio.records.measured import Profile
from edgefolio.records.split_plan import MOST_WORKERS, Certificate, Layout
from edgefolio.untrusted.json_document import Count, Line, Magnitude, Milliseconds, Positive

__all__ = ["Certificate", "MeasuredPlan", "SplitExchange", "SplitLink", "SplitMember", "SplitShard"]

_Bytes = Annotated[tuple[Count, ...], Field(min_length=1, max_length=MOST_WORKERS)]


class SplitLink(Record):
    """The network that a split was made for, as it was declared."""

    bits_per_second: Annotated[float, Field(ge=1, le=1e19)]
    round_trip_milliseconds: Annotated[float, Field(ge=0, le=1e6)]


class SplitExchange(Record):
    """A point at which workers send maps to each other: bytes a sample into each of them.

    ``dense_bytes_into`` is what it would be in float32 if all of it were sent. Exchanges of one ``depth`` happen
    together.
    """

    place: Line
    depth: Annotated[int, Field(ge=1, le=1024)]
    bytes_into: _Bytes
    dense_bytes_into: _Bytes


class MeasuredPlan(Record):
    """A plan that was made and measured beside the chosen one; bytes are those into the busiest worker, a sample."""

    title: Line
    bytes_into_busiest: Count
    predicted_milliseconds: Milliseconds
    validation_percent: Magnitude


class SplitShard(Record):
    """What one worker loads, and what it costs there, without any network."""

    rank: Annotated[int, Field(ge=0, lt=MOST_WORKERS)]
    size_bytes: Positive
    parameters: Count
    macs: Count
    profiles: Annotated[tuple[Profile, ...], Field(min_length=1, max_length=32)]


class SplitMember(Record):
    """How a variant is divided over workers; owners, transfers and digests of the files stand in its plan.

    ``predicted_milliseconds`` is the slowest worker's compute and the declared link, for one sample;
    ``own_milliseconds`` all shards one after another on one node. ``dense_bytes`` is what would be sent a sample, in
    float32 and into all workers, if nothing were pruned. ``least_bits_per_second`` is the slowest link on which the
    split is faster than every variant of one node that is as accurate.
    """

    workers: Annotated[int, Field(ge=2, le=MOST_WORKERS)]
    shares_percent: Annotated[tuple[Annotated[int, Field(ge=1, le=99)], ...], Field(max_length=MOST_WORKERS)]
    layout: Layout
    #: The last layer that is divided by rows, where channels follow.
    rows_until: Annotated[Line | None, Field(exclude_if=lambda value: value is None)] = None
    wire: Literal["Float32", "UInt8"]
    input_bytes: Count
    synchronisations: Annotated[int, Field(ge=0, le=1024)]
    exchanges: Annotated[tuple[SplitExchange, ...], Field(max_length=1024)] = ()
    dense_bytes: Count
    link: SplitLink
    shards: Annotated[tuple[SplitShard, ...], Field(min_length=2, max_length=MOST_WORKERS)]
    certificate: Certificate
    own_milliseconds: Milliseconds
    predicted_milliseconds: Milliseconds
    least_bits_per_second: Annotated[float | None, Field(ge=0, le=1e30)] = None
    #: All plans that were measured for it, the chosen one among them.
    plans: Annotated[tuple[MeasuredPlan, ...], Field(max_length=16, exclude_if=lambda value: not value)] = ()

    @model_validator(mode="after")
    def _is_of_its_workers(self) -> SplitMember:
        if len(self.shares_percent) != self.workers or sum(self.shares_percent) != 100:
            raise ValueError(f"sharesPercent are not {self.workers} numbers that sum to 100")
        if [shard.rank for shard in self.shards] != list(range(self.workers)):
            raise ValueError(f"shards are not those of workers 0 to {self.workers - 1}")
        for exchange in self.exchanges:
            if {len(exchange.bytes_into), len(exchange.dense_bytes_into)} != {self.workers}:
                raise ValueError(f"exchange at {exchange.place} has not one number for each worker")
        return self

    @property
    def shown_layout(self) -> str:
        """The layout in words."""
        words = {"Channels": "channels", "Rows": "rows", "RowsThenChannels": f"rows until {self.rows_until}, channels"}
        return words[self.layout]

    @property
    def bytes_into_busiest(self) -> int:
        """Bytes a sample into the worker that receives most."""
        return max(sum(exchange.bytes_into[rank] for exchange in self.exchanges) for rank in range(self.workers))

    @property
    def stored_bytes(self) -> int:
        """Files of all shards."""
        return sum(shard.size_bytes for shard in self.shards)

    def milliseconds_over(self, link: SplitLink, *, cpu_factor: float = 1.0) -> float:
        """The predicted time of one sample over another link, on nodes that compute so many times slower."""
        compute = self.predicted_milliseconds - self._network(self.link)
        return cpu_factor * max(0.0, compute) + self._network(link)

    def _network(self, link: SplitLink) -> float:
        # The input goes out and the answer comes back once, which is one more round trip.
        trips, bits = self.synchronisations + 1, 8 * (self.bytes_into_busiest + self.input_bytes)
        return trips * link.round_trip_milliseconds + 1e3 * bits / link.bits_per_second
