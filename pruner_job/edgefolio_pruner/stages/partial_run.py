"""One piece of a making by itself: what it makes, the run that puts the pieces together finds done."""

from __future__ import annotations

from pathlib import Path

from edgefolio.contract.work_pieces import TRAINING, macs_percent_of
from edgefolio.errors import UserError
from edgefolio.repository import Publication
from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.inputs import MakingSource, load_source
from edgefolio_pruner.methods.one_shot import one_shot_states
from edgefolio_pruner.methods.sparse_training import TrainedState, given_state, trained_states
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.stages.candidates import CandidateMaker
from edgefolio_pruner.stages.graph_cache import Captures
from edgefolio_pruner.work.directory import WorkDirectory, no_space_left


def make_piece(
    portfolio: ModelPortfolio, piece: str, *, work_directory: Path, threads: int, progress: Progress
) -> tuple[str, ...]:
    """Make the candidates of ``piece`` and leave them in the work directory; their names.

    Each is the same, bit by bit, as in a making of one run with the same processor, torch and number of threads. Raises
    :class:`~edgefolio.errors.UserError` for bad input.
    """
    source = load_source(portfolio, progress=progress)
    # Known before hours of work, as in a making of one run.
    Publication.check(portfolio.spec.repository.uri, field="spec.repository.uri")
    work = WorkDirectory(work_directory)
    with work.occupied(), no_space_left(work.path):
        captures = Captures(source)
        work.result("prunable-groups", source.record, captures.require_prunable)
        states = _states(portfolio, piece, source, work, threads, progress)
        made = CandidateMaker(source, captures, work=work, threads=threads).make(states, progress=progress)
    names = tuple(record.name for record, _ in made)
    progress(stage="candidates", fraction=1.0, message=f"{', '.join(names)}: proven and exported")
    return names


def _states(
    portfolio: ModelPortfolio,
    piece: str,
    source: MakingSource,
    work: WorkDirectory,
    threads: int,
    progress: Progress,
) -> tuple[TrainedState, ...]:
    methods, percent = portfolio.spec.methods, macs_percent_of(piece)
    if source.initial_state is None or methods.one_shot is None or portfolio.spec.data is None:
        raise UserError(
            "this making has no pieces that need nothing of each other.",
            field="spec.job.parallelism",
            value=portfolio.spec.job.parallelism,
            remedy="Give weights (source.weightsURI) and methods.oneShot, or leave parallelism out.",
        )
    if piece == TRAINING:
        return trained_states(source, methods, work=work, threads=threads, progress=progress)
    assert percent is not None
    return one_shot_states(
        source,
        given_state(source, work),
        methods.one_shot.model_copy(update={"macs_percent": (percent,)}),
        calibration_samples=portfolio.spec.data.calibration_samples,
        work=work,
        threads=threads,
        progress=progress,
    )
