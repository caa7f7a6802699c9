"""Run the demonstration of a split: ``python -m demo.split [--output DIR]``. Linux.

With root the two nodes are network namespaces with a wire of 1 Gbit/s, else two servers on loopback. Exit code 0 only
if no request failed, every answer was the split's or the fallback's, the split answered before and after each fault,
and the worker's metrics count what the answers show. Speed is shown, not judged.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from demo.split import nodes
from demo.split.figures import checks, figures
from demo.split.picture import draw
from demo.split.portfolio import PORTFOLIO, Objective, Served, make
from demo.split.process import ROOT
from demo.split.shown import show_figures, show_plan, write_figures
from demo.split.story import RATE, Story
from edgefolio.repository import Repository

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 130


def main(given: list[str] | None = None) -> int:
    """Make, show the plan, serve, break, heal, judge."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.split", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "demo-output" / "split", help="where all is written")
    parser.add_argument("--portfolio", type=Path, default=PORTFOLIO, help="the portfolio to make")
    parser.add_argument("--repository", type=Path, help="a made one with a split of two workers; nothing is made then")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each act lasts at least")
    parser.add_argument(
        "--objective-milliseconds", type=float, help="the objective; absent: one that fits this machine"
    )
    parser.add_argument("--loopback", action="store_true", help="no namespaces, with root either")
    options = parser.parse_args(given)
    console = Console(highlight=False, width=max(112, Console().width))
    if sys.platform != "linux":
        console.print("[red]This demonstration needs Linux.[/red]")
        return 2
    began = time.monotonic()

    def progress(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.0f} s[/dim]  {text}")

    try:
        with _interruptible():
            return _run(options, console, progress)
    except KeyboardInterrupt:
        console.print("[red]interrupted; what was started is ended[/red]")
        return _INTERRUPTED
    finally:
        progress("done")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Any signal that ends a program unwinds it, once: what is started is ended on the way."""

    def interrupt(*_: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(options: argparse.Namespace, console: Console, progress: Callable[[str], None]) -> int:
    output: Path = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    repository: Path | None = options.repository
    if repository is None:
        repository = output / "repository"
        shutil.rmtree(repository, ignore_errors=True)
        progress(f"making a portfolio of {options.portfolio.name} with a split (about 4 minutes)")
        code = make(
            options.portfolio.resolve(), repository=repository, work=output / "work", report=output / "report.html"
        )
        if code:
            console.print(f"[red]edgefolio make ended with {code}[/red]")
            return code
    store = Repository.open(str(repository))
    served = Served.of(store.current_manifest(store.models()[0])[1])
    objective = Objective.of(served, options.objective_milliseconds)
    show_plan(console, served, objective)
    with contextlib.ExitStack() as stack:
        is_wired, where = _nodes(stack, is_wanted=not options.loopback)
        progress(f"{where}; each server on one core, TLS between them")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefolio-split-")))
        story = Story(
            folder=folder,
            repository=repository.resolve(),
            served=served,
            objective=objective,
            is_wired=is_wired,
            seconds=options.seconds,
            progress=progress,
        )
        try:
            told = story.tell()
        finally:
            for log in (*folder.glob("*.log"), *folder.glob("lines.txt")):
                shutil.copy(log, output / log.name)
    names = {"split": served.variant.name, "fallback": served.fallback.name}
    found = figures(told.requests, told.acts, objective=objective.milliseconds, **names)
    verdicts = checks(told.requests, found, told.counts, **names)
    title = f"{served.manifest.model} over two nodes, as a client of the first one sees it; {where}"
    for ending in ("png", "svg"):
        picture = output / f"picture.{ending}"
        draw(picture, told.requests, told.acts, objective=objective.milliseconds, title=title, **names)
    write_figures(output / "figures.json", found, verdicts, objective=objective, where=where)
    console.print()
    show_figures(console, found, verdicts, where=where)
    console.print(f"\npicture: {output / 'picture.png'}, figures and logs beside it")
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def _nodes(stack: contextlib.ExitStack, *, is_wanted: bool) -> tuple[bool, str]:
    """Make two nodes as long as ``stack``. Returns whether they are namespaces with a wire, and what they are."""
    if not is_wanted:
        return False, "two servers on loopback, as asked for, whose rate is not cut"
    try:
        stack.enter_context(nodes.two_nodes())
    except nodes.WireError as error:
        return False, f"two servers on loopback, whose rate is not cut ({error})"
    return True, f"two network namespaces with a wire of {RATE}"


if __name__ == "__main__":
    sys.exit(main())
