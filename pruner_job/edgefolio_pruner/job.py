"""A pruning run as a Kubernetes Job: ``python -m edgefolio_pruner.job FILE WORK_DIRECTORY``.

The same pipeline as ``edgefolio make``. Progress and warnings go to standard output as one JSON object per line; the
termination message of the container reports what was published or what must be fixed. Exit codes: 0
published (or the piece is made); 2 bad input, a retry would fail again; 143 terminated by SIGTERM;
1 anything else, and a retry may help.

``--work-uri`` names the place of the work directory in an object store: it is fetched at the start and kept up to date,
so that another pod resumes if this one is lost. ``--pieces N`` makes one of N pieces alone, the one whose number is
in ``JOB_COMPLETION_INDEX``.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from edgefolio.contract.job_report import FailureReport, ProgressLine, PublishedReport, write_termination_message
from edgefolio.contract.log_format import log_as_json, log_line
from edgefolio.contract.pod import INDEX_VARIABLE, MAKING_VARIABLE
from edgefolio.contract.work_pieces import pieces_of
from edgefolio.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_OK, UserError
from edgefolio.specification import ModelPortfolio
from edgefolio.specification.loading import load_stored_portfolio
from edgefolio.specification.validation.base import bytes_of
from edgefolio_pruner.available_memory import bounded
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.work.background_sync import SECONDS_BETWEEN_COPIES, BackgroundSync
from edgefolio_pruner.work.mirror import MAIN, WorkMirror

logger = logging.getLogger(__name__)

EXIT_TOLD_TO_END = 128 + signal.SIGTERM
_SECONDS_BETWEEN_LINES = 1.0


class LoggedProgress:
    """A :class:`~edgefolio_pruner.progress.Progress` that logs one JSON line a second, and each new stage at once."""

    def __init__(self) -> None:
        self._stage = ""
        self._logged_at = -_SECONDS_BETWEEN_LINES

    def __call__(self, *, stage: str, fraction: float, message: str) -> None:
        """Log the progress, unless that was just done."""
        now = time.monotonic()
        if stage == self._stage and now - self._logged_at < _SECONDS_BETWEEN_LINES and fraction < 1:
            return
        self._stage, self._logged_at = stage, now
        line = ProgressLine(stage=stage, percent=int(100 * fraction), message=message)
        print(log_line(line.model_dump(by_alias=True)), flush=True)


class Task:
    """Work of one pod: a whole pruning run, or one of its pieces."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work_directory: Path = arguments.work_directory
        self.work_uri: str | None = arguments.work_uri
        self.copy_seconds: float = arguments.copy_seconds
        self.making = os.environ.get(MAKING_VARIABLE, "")
        self._pieces: int | None = arguments.pieces

    def piece_of(self, portfolio: ModelPortfolio) -> str | None:
        """The piece to make; ``None`` for all of it. Raises :class:`UserError` if there is no such piece."""
        if self._pieces is None:
            return None
        pieces = pieces_of(portfolio.spec.methods)
        index = os.environ.get(INDEX_VARIABLE, "")
        if len(pieces) != self._pieces or not index.isdecimal() or int(index) >= len(pieces):
            raise UserError(
                f"this pruning run has {len(pieces)} pieces, not {self._pieces}.",
                field=INDEX_VARIABLE,
                value=index,
                remedy="Run the pruner of the operator's own version.",
            )
        return pieces[int(index)]


def run(file: Path, task: Task) -> tuple[int, PublishedReport | FailureReport | None]:
    """Make ``file``; returns exit code and termination message, which a piece has only if it fails."""
    try:
        portfolio = load_stored_portfolio(file)
        piece = task.piece_of(portfolio)
        limit = portfolio.spec.job.resources.limits.get("memory")
        with bounded(None if limit is None else bytes_of(limit)):
            if piece is None:
                return EXIT_OK, _publish(portfolio, task)
            _make_piece(portfolio, piece, task)
        return EXIT_OK, None
    except _ToldToEndError:
        return EXIT_TOLD_TO_END, FailureReport(kind="Failed", problem="The pod was told to end.")
    except Exception as error:
        report = FailureReport.of(error)
        if report.kind == "Failed":
            logger.exception("the pruning run failed")
        return (EXIT_BAD_INPUT if report.kind == "BadInput" else EXIT_FAILURE), report


def _publish(portfolio: ModelPortfolio, task: Task) -> PublishedReport:
    from edgefolio_pruner.pipeline import make_portfolio

    with _work_directory(task, slot=MAIN) as work:
        result = make_portfolio(
            portfolio,
            work_directory=task.work_directory,
            threads=work.threads,
            progress=work.progress,
            making=task.making,
            before_publishing=work.keep,
        )
        if result.work_names is not None:
            work.tidy(result.work_names)
    return PublishedReport.of(result.manifest, digest=result.published.pointer.manifest_sha256)


def _make_piece(portfolio: ModelPortfolio, piece: str, task: Task) -> None:
    from edgefolio_pruner.stages.partial_run import make_piece

    with _work_directory(task, slot=piece) as work:
        make_piece(portfolio, piece, work_directory=task.work_directory, threads=work.threads, progress=work.progress)


class _Work:
    """The work directory of a run, local or mirrored."""

    def __init__(
        self,
        *,
        threads: int,
        progress: Progress,
        keep: Callable[[], None] = lambda: None,
        tidy: Callable[[frozenset[str]], None] = lambda _names: None,
    ) -> None:
        self.threads, self.progress, self.keep, self.tidy = threads, progress, keep, tidy


@contextmanager
def _work_directory(task: Task, *, slot: str) -> Iterator[_Work]:
    from edgefolio_pruner.pipeline import available_threads
    from edgefolio_pruner.profiling.environment import cpu_quota

    progress, threads = LoggedProgress(), available_threads()
    if task.work_uri is None:
        yield _Work(threads=threads, progress=progress)
        return
    remote = WorkMirror.open(task.work_uri, task.work_directory, slot=slot)
    if cpu_quota() is None:
        # Nodes differ; the Job's CPU limit does not.
        threads = remote.agreed_threads(threads)
    # A piece also takes the files of MAIN; the publishing run merges all slots.
    others = remote.other_slots() if slot == MAIN else (MAIN,)
    brought = remote.take(others=others)
    progress(stage="work", fraction=1.0, message=f"{brought} files of earlier runs restored")

    with BackgroundSync(remote, seconds=task.copy_seconds) as sync:

        def tidy(names: frozenset[str]) -> None:
            """Keep what this pruning run uses; remove results of other settings and the pieces' slots."""
            for path in task.work_directory.iterdir():
                if path.name not in names:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            sync.send(everything=True)
            remote.forget(others)

        def keep() -> None:
            sync.send(everything=True)

        yield _Work(threads=threads, progress=sync.watching(progress), keep=keep, tidy=tidy)


class _ToldToEndError(BaseException):
    """SIGTERM: a drain, a suspension or the deletion of the Job."""


def _told_to_end(*_: object) -> NoReturn:
    raise _ToldToEndError


def main(arguments: list[str]) -> int:
    """Run the Job; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m edgefolio_pruner.job", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path, help="the ModelPortfolio")
    parser.add_argument("work_directory", type=Path, help="where work is kept")
    parser.add_argument("--work-uri", help="where the work directory is kept in an object store")
    parser.add_argument("--copy-seconds", type=float, default=SECONDS_BETWEEN_COPIES, help="how often it is kept there")
    parser.add_argument("--pieces", type=int, help=f"make one of so many pieces, by {INDEX_VARIABLE}")
    parsed = parser.parse_args(arguments)
    log_as_json(level=logging.WARNING)
    # PID 1 of a container ignores signals without a handler.
    signal.signal(signal.SIGTERM, _told_to_end)
    exit_code, report = run(parsed.file, Task(parsed))
    if report is not None:
        write_termination_message(report)
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
