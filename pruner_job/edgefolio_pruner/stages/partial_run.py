"""Run of one piece of a pruning run: the pod that merges the pieces finds its candidates done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgefolio.contract.work_pieces import split_piece
from edgefolio.errors import UserError
from edgefolio.repository import Publication
from edgefolio.specification import ModelPortfolio
from edgefolio_pruner import methods
from edgefolio_pruner.inputs import load_source, naming_the_model_file
from edgefolio_pruner.methods import METHODS, Method, Workbench
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.stages.candidates import CandidateMaker
from edgefolio_pruner.stages.checks.first_look import look_first
from edgefolio_pruner.stages.graph_cache import GraphCache
from edgefolio_pruner.stages.splits.making import SplitMaker
from edgefolio_pruner.work.directory import WorkDirectory, no_space_left


@naming_the_model_file
def make_piece(
    portfolio: ModelPortfolio,
    piece: str,
    *,
    work_directory: Path,
    threads: int,
    progress: Progress,
    known_methods: Sequence[type[Method]] = METHODS,
) -> tuple[str, ...]:
    """Make the candidates of ``piece``, or the plans of a split, and leave them in the work directory; their names.

    Each is the same, bit by bit, as in an undivided run with the same processor, torch and number of threads. Raises
    :class:`~edgefolio.errors.UserError` for bad input.
    """
    source = load_source(portfolio, progress=progress, scratch=work_directory)
    # Fail before hours of work, as in a single run.
    Publication.check(portfolio.spec.repository.uri, field="spec.repository.uri")
    if source.initial_state is None:
        raise UserError(
            "this pruning run has no pieces that need nothing of each other.",
            field="spec.job.parallelism",
            value=portfolio.spec.job.parallelism,
            remedy="Give weights (source.weightsURI) and methods.oneShot, or leave parallelism out.",
        )
    work = WorkDirectory(work_directory)
    with work.occupied(), no_space_left(work.path):
        graphs = GraphCache(source)
        chosen = methods.asked_for(portfolio, known_methods)
        batches = portfolio.spec.profiling.batch_sizes
        first = look_first(source, graphs, chosen, work=work, batches=batches, threads=threads)
        splits = SplitMaker(portfolio, source, graphs, work=work, threads=threads, batch=first.batch)
        splits.require_possible()
        bench = Workbench(source=source, work=work, threads=threads, progress=progress)
        maker = CandidateMaker(source, graphs, work=work, threads=threads, batch=first.batch)
        if piece in {split_piece(entry.name) for entry in portfolio.spec.methods.split}:
            dense = methods.given_weights(source, work)
            (made_dense,) = maker.make((dense,), progress=progress)
            splits.make(dense, made_dense, judge=maker.judge, progress=progress, only=piece)
            progress(stage="split", fraction=1.0, message=f"{piece}: planned and measured")
            return (piece,)
        made = maker.make(methods.make_piece(chosen, piece, bench), progress=progress)
    names = tuple(record.name for record, _ in made)
    progress(stage="candidates", fraction=1.0, message=f"{', '.join(names)}: proven and exported")
    return names
