"""First look at model and data: what can be known before hours of work is known before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edgefolio import __version__
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.methods import Method
from edgefolio_pruner.scoring.judge import FAST_BATCH
from edgefolio_pruner.stages.checks.rehearsal import rehearse
from edgefolio_pruner.stages.checks.weights_check import check_given_weights, depends_on_batch
from edgefolio_pruner.stages.graph_cache import GraphCache
from edgefolio_pruner.work.directory import WorkDirectory


@dataclass(frozen=True, kw_only=True)
class FirstLook:
    """``batch`` is the size of batches in which accuracy is measured, ``notes`` what is to be told."""

    batch: int
    notes: tuple[str, ...]


def look_first(
    source: MakingSource,
    graphs: GraphCache,
    methods: Sequence[Method],
    *,
    work: WorkDirectory,
    batches: Sequence[int],
    threads: int,
) -> FirstLook:
    """Look at given weights and at the graph, and rehearse the run, once per source and methods.

    ``batches`` are the sizes of batches that are served, the last one first of all. Raises
    :class:`~edgefolio.errors.UserError` for weights that do not answer as trained ones, for a network in which nothing
    can be pruned, and for what :func:`~edgefolio_pruner.stages.checks.rehearsal.rehearse` finds.
    """
    batch = batches[-1]

    def look() -> dict[str, Any]:
        notes = check_given_weights(source)
        module = source.build() if source.initial_state is None else source.build_with(source.initial_state)
        depends = depends_on_batch(module.eval(), *source.data.train.all_inputs)
        del module
        notes += rehearse(source, graphs, methods, batches=batches, threads=threads)
        return {"notes": notes, "dependsOnBatch": depends}

    work.result("prunable-groups", source.record, graphs.require_prunable)
    key = {
        **source.record,
        "methods": [[method.stage, *method.pieces()] for method in methods],
        "batches": list(batches),
        "edgefolio": __version__,
        "torch": torch.__version__,
    }
    if not source.scoring.is_default:
        key["scoring"] = source.scoring.key
    seen = work.result("first-look", key, look)
    notes = [*source.notes, *seen["notes"]]
    if not seen["dependsOnBatch"]:
        return FirstLook(batch=FAST_BATCH, notes=tuple(notes))
    notes.append(
        "the network's answer for a sample depends on the others in its batch: accuracies are those of batches of "
        f"{batch}, as they are served (the last of profiling.batchSizes), and hold for no other"
    )
    return FirstLook(batch=batch, notes=tuple(notes))
