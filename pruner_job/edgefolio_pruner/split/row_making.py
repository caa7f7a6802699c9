"""A split by rows: its plan, and each worker's band of the network as a shard; nothing is lost."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import fx

from edgefolio.records.split_plan import PlannedShard, SplitPlan
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.split.making import MadeSplit, add_shard, planned_exchanges
from edgefolio_pruner.split.rows.module import row_module
from edgefolio_pruner.split.rows.plan import RowPlan, plan_rows
from edgefolio_pruner.split.shards.writing import INPUT, exported

__all__ = ["make_row_split"]


def make_row_split(captured: CapturedModel, *, shares: Sequence[int], fused: Collection[str] = ()) -> MadeSplit:
    """The dense model by rows, on a Float32 wire: it answers as the model does, but for rounding.

    The ``fused`` values are not exchanged. Raises :class:`~edgefolio.errors.UserError` if the model has no rows, or too
    few of them.
    """
    plan = plan_rows(captured, shares, fused=fused)
    files: dict[str, bytes] = {}
    shards: list[PlannedShard] = []
    results = _results(plan)
    names = ("output",) if len(results) == 1 else tuple(f"output_{index}" for index in range(len(results)))
    for worker in range(len(shares)):
        part = row_module(plan, worker).part()
        graph = exported(part.module, part.joints, part.shapes, names)
        shards.append(add_shard(files, graph, plan.traffic, worker, depths=plan.depths, ranges=None))
    made = SplitPlan(
        workers=len(shares),
        shares_percent=tuple(shares),
        layout="Rows",
        wire="Float32",
        input=INPUT,
        outputs=names,
        combination=tuple("Sum" if plan.states[node] == "part" else "First" for node in results),
        exchanges=tuple(planned_exchanges(plan.points.values(), plan.traffic, plan.depths)),
        shards=tuple(shards),
        notes=tuple(dict.fromkeys(f"all rows are gathered for {reason}"[:1000] for reason in plan.gathered)),
    )
    return MadeSplit(made, files)


def _results(plan: RowPlan) -> list[fx.Node]:
    return list(next(iter(reversed(plan.program.module.graph.nodes))).all_input_nodes)
