"""First look at model and data: what can be known before hours of work is known before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.scoring.judge import FAST_BATCH
from edgefolio_pruner.stages.graph_cache import GraphCache
from edgefolio_pruner.stages.weights_check import check_given_weights, depends_on_batch
from edgefolio_pruner.work.directory import WorkDirectory


@dataclass(frozen=True, kw_only=True)
class FirstLook:
    """``batch`` is the size of batches in which accuracy is measured, ``notes`` what is to be told."""

    batch: int
    notes: tuple[str, ...]


def look_first(source: MakingSource, graphs: GraphCache, *, work: WorkDirectory, batch: int) -> FirstLook:
    """Look at given weights and at the graph, once per source. ``batch`` is the size of the batches that are served.

    Raises :class:`~edgefolio.errors.UserError` for weights that do not answer as trained ones, and for a network in
    which nothing can be pruned.
    """

    def look() -> dict[str, Any]:
        notes = check_given_weights(source)
        module = source.build() if source.initial_state is None else source.build_with(source.initial_state)
        return {"notes": notes, "dependsOnBatch": depends_on_batch(module.eval(), source.data.train.images)}

    work.result("prunable-groups", source.record, graphs.require_prunable)
    key = source.record if source.scoring.is_default else {**source.record, "scoring": source.scoring.key}
    seen = work.result("first-look", key, look)
    notes = [*source.notes, *seen["notes"]]
    if not seen["dependsOnBatch"]:
        return FirstLook(batch=FAST_BATCH, notes=tuple(notes))
    notes.append(
        "the network's answer for a sample depends on the others in its batch: accuracies are those of batches of "
        f"{batch}, as they are served (the last of profiling.batchSizes), and hold for no other"
    )
    return FirstLook(batch=batch, notes=tuple(notes))
