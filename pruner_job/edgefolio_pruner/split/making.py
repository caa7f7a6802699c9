"""A split made of owners, transfers and weights: its plan and the files of its shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from edgefolio.records.split_plan import Certificate, PlannedExchange, PlannedSegment, PlannedShard, SplitPlan, Transfer
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.spatial.passes.weights import Matrices
from edgefolio_pruner.split.channels.ownership import Ownership
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.exchanges.points import ExchangePoint, depths_of
from edgefolio_pruner.split.shards.segments import CutSegment, cut
from edgefolio_pruner.split.shards.wire import SlotRanges, Traffic, add_wire, received_name, sent_name, slots_between
from edgefolio_pruner.split.shards.writing import INPUT, output_names, rank_graph, sums, traffic_of

__all__ = ["MadeSplit", "add_segments", "make_split", "planned_exchanges"]


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
    ranges: Mapping[str, SlotRanges] | None = None,
    certificate: Certificate | None = None,
    notes: Sequence[str] = (),
) -> MadeSplit:
    """Write the shards of a split whose weights are ``state``, which has zeros where workers lack the input."""
    divided = divide(captured.with_state(state))
    traffic = traffic_of(ownership, divided.points)
    depth = depths_of(divided, traffic)
    matrices = Matrices(divided.structure.program)
    files: dict[str, bytes] = {}
    shards: list[PlannedShard] = []
    for worker in range(ownership.workers):
        graph = rank_graph(divided, ownership, worker, matrices=matrices)
        model = add_wire(graph, ownership, worker, ranges=ranges)
        depth_of = {
            received_name(joint.point, peer): depth[joint.point.name]
            for joint in graph.joints
            for peer in range(ownership.workers)
        }
        planned = add_segments(files, worker, cut(model, depth_of=depth_of))
        shards.append(PlannedShard(rank=worker, segments=planned, parameters=graph.parameters, macs=graph.macs))
    plan = SplitPlan(
        workers=ownership.workers,
        shares_percent=tuple(shares),
        layout="Channels",
        wire="Float32" if ranges is None else "UInt8",
        input=INPUT,
        outputs=output_names(divided),
        combination=tuple("Sum" if is_part else "First" for is_part in sums(divided)),
        exchanges=tuple(
            planned_exchanges([point for point in divided.points if point.name in traffic], ownership, depth)
        ),
        shards=tuple(shards),
        certificate=certificate,
        notes=tuple(notes),
    )
    return MadeSplit(plan, files)


def add_segments(files: dict[str, bytes], worker: int, segments: Sequence[CutSegment]) -> tuple[PlannedSegment, ...]:
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
