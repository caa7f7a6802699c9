"""Progress callback of long work: the command draws it, a Job logs it, tests ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by long work a few times per second at most."""

    def __call__(self, *, stage: str, fraction: float, message: str) -> None:
        """``stage`` names the work, ``fraction`` of it is done (0..1), ``message`` is one line with numbers.

        A stage that is done at once may tell more in further lines.
        """


def no_progress(*, stage: str, fraction: float, message: str) -> None:
    """A :class:`Progress` that shows nothing."""


def part_of(progress: Progress, *, start: float, end: float) -> Progress:
    """A :class:`Progress` for work that fills ``start``..``end`` (0..1) of the whole that ``progress`` shows."""

    def report(*, stage: str, fraction: float, message: str) -> None:
        progress(stage=stage, fraction=start + (end - start) * fraction, message=message)

    return report
