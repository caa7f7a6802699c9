"""Progress display: bars on a terminal, periodic lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column

from edgefolio_pruner.progress import Progress, no_progress

#: Interval of progress lines in a log.
_SECONDS_BETWEEN_LINES = 10.0
#: Stages that tell something and take no time.
_TOLD = frozenset({"classes", "note"})


@contextmanager
def shown_progress(console: Console, *, quiet: bool = False) -> Iterator[Progress]:
    """A :class:`Progress` that draws on ``console``: one bar per stage, or plain lines where it is no terminal."""
    if quiet:
        yield no_progress
    elif console.is_terminal:
        with Bars(
            TextColumn("{task.description:<10}", table_column=Column(no_wrap=True, min_width=10)),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True, min_width=4)),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn(
                "[dim]{task.fields[message]}[/dim]", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
            console=console,
            expand=True,
        ) as bars:
            yield _BarPerStage(bars, console)
    else:
        yield _Lines(console)


class _BarPerStage:
    def __init__(self, bars: Bars, console: Console) -> None:
        self._bars, self._console = bars, console
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, *, stage: str, fraction: float, message: str) -> None:
        if stage in _TOLD:
            # Above the bars, where it stays.
            for line in message.split("\n"):
                self._console.print(line, markup=False, soft_wrap=True)
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=1.0, message="")
        # Square brackets would be taken for rich's markup.
        self._bars.update(self._tasks[stage], completed=fraction, message=message.replace("[", "("))


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._last = float("-inf")
        self._stage: str | None = None

    def __call__(self, *, stage: str, fraction: float, message: str) -> None:
        now = time.monotonic()
        is_due = stage != self._stage or fraction >= 1.0 or now - self._last >= _SECONDS_BETWEEN_LINES
        if not is_due:
            return
        self._stage, self._last = stage, now
        first, *others = message.split("\n")
        self._console.print(
            f"{now - self._started:6.1f} s  {stage:<10} {fraction:4.0%}  {first}", markup=False, soft_wrap=True
        )
        for line in others:
            self._console.print(f"{'':10}{line}", markup=False, soft_wrap=True)
