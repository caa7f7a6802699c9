"""Split members of a draft: what was chosen, as variants of the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgefolio.manifest import VERSIONS_PER_REVISION, Profile, Variant
from edgefolio.records.split_member import MeasuredPlan, SplitExchange, SplitLink, SplitMember, SplitShard
from edgefolio.records.split_plan import PlannedExchange
from edgefolio_pruner.methods import DENSE
from edgefolio_pruner.scoring import Judge, Measured
from edgefolio_pruner.split.result import ComparedPlan
from edgefolio_pruner.stages.splits.profiles import member_profile
from edgefolio_pruner.stages.splits.records import MadeEntry, MadePlan

__all__ = ["FLOAT_BYTES", "SplitVariant"]

FLOAT_BYTES = 4
_METHODS = {
    "Rows": "split by rows",
    "Channels": "split by channels (RePurpose)",
    "RowsThenChannels": "split by rows, then by channels (RePurpose)",
}


@dataclass(frozen=True, kw_only=True)
class SplitVariant:
    """A chosen plan with all that was measured of it; a variant without a rank."""

    entry: MadeEntry
    made: MadePlan
    compared: ComparedPlan
    profiles: tuple[Profile, ...]
    others: tuple[ComparedPlan, ...] = ()
    """All plans of the entry, this one too."""

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.entry.name

    @property
    def key(self) -> list[Any]:
        """What the variant depends on besides its plan, for keys of kept results."""
        compared = self.compared
        figures = (compared.own_milliseconds, compared.predicted_milliseconds, compared.least_bits_per_second)
        return [
            self.name,
            self.made.record.sha256,
            list(figures),
            [[other.title, other.bytes_in, other.predicted_milliseconds] for other in self.others],
            [profile.model_dump(mode="json") for profile in self.profiles],
        ]

    def measured(self, judge: Judge, part: Literal["validation", "test"]) -> Measured:
        """The score of its shards, wire included."""
        executor = self.made.executor(threads=judge.threads)
        return judge.measure_answers(lambda inputs: executor.run(inputs[0]).outputs, part)

    def variant(self, test: Measured) -> Variant:
        """The variant, as the least accurate of revision 1."""
        plan, record = self.compared.plan, self.made.record
        return Variant(
            name=self.name,
            rank=1,
            file=f"{VERSIONS_PER_REVISION + 1}/plan.json",
            sha256=record.sha256,
            size_bytes=record.size_bytes,
            parent=DENSE,
            method=_METHODS[plan.layout] + ("" if plan.precision == "Float32" else ", int8"),
            settings=self.entry.entry.model_dump(mode="json", by_alias=True) | {"plan": self.compared.title},
            opset=record.opset,
            ir_version=record.ir_version,
            parameters=max(shard.parameters for shard in plan.shards),
            macs=max(shard.macs for shard in plan.shards),
            validation_accuracy=record.validation_accuracy,
            test_accuracy=test.accuracy,
            test_classes=test.classes,
            validation_score=record.validation_score,
            test_score=test.score,
            parity=record.parity,
            exactness=None,
            precision=plan.precision,
            quantization=record.quantization,
            split=self._member(),
            profiles=(member_profile(self.profiles),),
            probe=record.probe,
        )

    def _member(self) -> SplitMember:
        plan, compared, link = self.compared.plan, self.compared, self.entry.entry.link
        assert plan.certificate is not None
        return SplitMember(
            workers=plan.workers,
            shares_percent=plan.shares_percent,
            layout=plan.layout,
            rows_until=plan.rows_until,
            wire=plan.wire,
            input_bytes=compared.input_bytes,
            synchronisations=plan.synchronisations,
            exchanges=_exchanges(plan.exchanges, workers=plan.workers, element_bytes=plan.element_bytes),
            dense_bytes=self.made.record.dense_bytes,
            link=SplitLink(
                bits_per_second=link.bits_per_second, round_trip_milliseconds=float(link.round_trip_milliseconds)
            ),
            shards=tuple(
                SplitShard(
                    rank=shard.rank,
                    size_bytes=shard.size_bytes,
                    parameters=shard.parameters,
                    macs=shard.macs,
                    profiles=(profile,),
                )
                for shard, profile in zip(plan.shards, self.profiles, strict=True)
            ),
            certificate=plan.certificate,
            own_milliseconds=compared.own_milliseconds,
            predicted_milliseconds=compared.predicted_milliseconds,
            least_bits_per_second=compared.least_bits_per_second,
            plans=tuple(
                MeasuredPlan(
                    title=other.title,
                    bytes_into_busiest=other.bytes_in,
                    predicted_milliseconds=other.predicted_milliseconds,
                    validation_percent=other.accuracy_percent,
                )
                for other in self.others
            ),
        )


def _exchanges(planned: Sequence[PlannedExchange], *, workers: int, element_bytes: int) -> tuple[SplitExchange, ...]:
    return tuple(
        SplitExchange(
            place=exchange.place,
            depth=exchange.depth,
            bytes_into=tuple(element_bytes * exchange.elements_into(rank) for rank in range(workers)),
            dense_bytes_into=tuple(
                FLOAT_BYTES * exchange.elements * sum(owner not in (rank, -1) for owner in exchange.owners)
                for rank in range(workers)
            ),
        )
        for exchange in planned
        if exchange.transfers
    )
