"""A split made of owners, transfers and weights: its plan and the files of its shards."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from edgefolio.records.split_plan import Certificate, PlannedExchange, PlannedSegment, PlannedShard, SplitPlan, Transfer
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.spatial.passes.weights import Matrices
from edgefolio_pruner.split.channels.ownership import Ownership
from edgefolio_pruner.split.cutting import Cut
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.exchanges.points import Divided, ExchangePoint, depths_of
from edgefolio_pruner.split.rows.module import row_module
from edgefolio_pruner.split.rows.plan import RowPlan, plan_rows
from edgefolio_pruner.split.shards.joining import JoinedTraffic, joined_module
from edgefolio_pruner.split.shards.segments import CutSegment, cut
from edgefolio_pruner.split.shards.wire import SlotRanges, Traffic, add_wire, received_name, sent_name, slots_between
from edgefolio_pruner.split.shards.writing import (
    INPUT,
    RankGraph,
    exported,
    output_names,
    rank_module,
    sums,
    traffic_of,
)

__all__ = ["MadeSplit", "add_shard", "make_split", "planned_exchanges"]


@dataclass(frozen=True, eq=False)
class MadeSplit:
    """A plan and its files by name."""

    plan: SplitPlan
    files: Mapping[str, bytes]


def make_split(
    captured: CapturedModel,
    ownership: Ownership,
    *,
    state: Mapping[str, torch.Tensor],
    shares: Sequence[int],
    before: Cut | None = None,
    fused: Collection[str] = (),
    ranges: Mapping[str, SlotRanges] | None = None,
    certificate: Certificate | None = None,
    notes: Sequence[str] = (),
) -> MadeSplit:
    """Write the shards of a split whose weights are ``state``, which has zeros where workers lack the input.

    ``captured`` is what is divided by channels: all of the network, or what is behind the cut ``before``, in front of
    which it is divided by rows, without the exchanges of the ``fused`` values. Raises
    :class:`~edgefolio.errors.UserError` if a map in front has too few rows.
    """
    divided = divide(captured.with_state(state))
    rows = None if before is None else plan_rows(before.before, shares, fused=fused, first_number=len(divided.points))
    points, traffic, depths = _exchanges(divided, ownership, rows)
    matrices = Matrices(divided.structure.program)
    files: dict[str, bytes] = {}
    shards: list[PlannedShard] = []
    for worker in range(ownership.workers):
        part = rank_module(divided, ownership, worker, matrices=matrices)
        if rows is not None:
            part = joined_module(row_module(rows, worker).part(), part)
        graph = exported(part.module, part.joints, part.shapes, output_names(divided))
        shards.append(add_shard(files, graph, traffic, worker, depths=depths, ranges=ranges))
    plan = SplitPlan(
        workers=ownership.workers,
        shares_percent=tuple(shares),
        layout="Channels" if before is None else "RowsThenChannels",
        rows_until=None if before is None else before.until,
        wire="Float32" if ranges is None else "UInt8",
        input=INPUT,
        outputs=output_names(divided),
        combination=tuple("Sum" if is_part else "First" for is_part in sums(divided)),
        exchanges=tuple(planned_exchanges(points, traffic, depths)),
        shards=tuple(shards),
        certificate=certificate,
        notes=tuple(notes),
    )
    return MadeSplit(plan, files)


def _exchanges(
    divided: Divided, ownership: Ownership, rows: RowPlan | None
) -> tuple[list[ExchangePoint], Traffic, dict[str, int]]:
    """All exchanges at which anything travels, those of rows first, and their depths."""
    names = traffic_of(ownership, divided.points)
    points = [point for point in divided.points if point.name in names]
    depths = depths_of(divided, names)
    if rows is None:
        return points, ownership, depths
    deepest = max(rows.depths.values(), default=0)
    first = list(rows.points.values())
    joined = JoinedTraffic(rows.traffic, ownership, frozenset(point.name for point in first))
    return [*first, *points], joined, {**rows.depths, **{name: deepest + depth for name, depth in depths.items()}}


def add_shard(
    files: dict[str, bytes],
    graph: RankGraph,
    traffic: Traffic,
    worker: int,
    *,
    depths: Mapping[str, int],
    ranges: Mapping[str, SlotRanges] | None,
) -> PlannedShard:
    """The shard of a worker as the plan names it; its segments go into ``files``."""
    model = add_wire(graph, traffic, worker, ranges=ranges)
    depth_of = {
        received_name(joint.point, peer): depths[joint.point.name]
        for joint in graph.joints
        for peer in range(traffic.workers)
    }
    planned = _add_segments(files, worker, cut(model, depth_of=depth_of))
    return PlannedShard(rank=worker, segments=planned, parameters=graph.parameters, macs=graph.macs)


def _add_segments(files: dict[str, bytes], worker: int, segments: Sequence[CutSegment]) -> tuple[PlannedSegment, ...]:
    """The segments of a worker as the plan names them; their content goes into ``files``."""
    planned = []
    for number, segment in enumerate(segments):
        name = f"shard-{worker}/segment-{number}.onnx"
        files[name] = segment.content
        planned.append(
            PlannedSegment(
                file=name,
                depth=segment.depth,
                sha256=hashlib.sha256(segment.content).hexdigest(),
                size_bytes=len(segment.content),
            )
        )
    return tuple(planned)


def planned_exchanges(
    points: Iterable[ExchangePoint], traffic: Traffic, depth: Mapping[str, int]
) -> list[PlannedExchange]:
    """The exchanges of a plan: who sends what to whom."""
    found = []
    ranks = range(traffic.workers)
    for point in points:
        transfers = []
        for sender in ranks:
            for receiver in ranks:
                slots = slots_between(traffic, point, sender, receiver)
                if sender != receiver and len(slots):
                    transfers.append(
                        Transfer(
                            sender=sender,
                            receiver=receiver,
                            slots=tuple(int(slot) for slot in slots),
                            sent=sent_name(point, receiver),
                            received=received_name(point, sender),
                        )
                    )
        owners = [int(owner) for owner in traffic.owners(point)]
        found.append(
            PlannedExchange(
                name=point.name,
                place=point.place,
                kind="gather" if point.kind == "gather" else "send",
                depth=depth[point.name],
                elements=point.elements,
                owners=tuple(owners),
                transfers=tuple(transfers),
            )
        )
    return found
