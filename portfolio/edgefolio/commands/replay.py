"""Command ``edgefolio replay``: replays a trace's decisions in virtual time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import typer
from rich.table import Table
from rich.text import Text

from edgefolio.commands.terminal import Terminal
from edgefolio.decision.recording.replay import Replay
from edgefolio.decision.recording.replay import replay as replay_trace
from edgefolio.decision.recording.traces import Trace, parse_trace
from edgefolio.decision.types import Action
from edgefolio.errors import EXIT_FAILURE, EXIT_OK, UserError

_DIFFERENCES_SHOWN = 20
#: A header with 16 variants has 5,000 characters, a cycle 1,000: ten days of cycles.
_LONGEST_LINE, _LARGEST_TRACE = 1 << 20, 1 << 30


def replay(
    trace: Path = typer.Argument(..., help="A decision trace: JSON lines, as `edgefolio run` records them."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> int:
    """Take the decisions of a recorded trace again, in virtual time, and show each change with its reason.

    Where the trace holds expected or recorded decisions they are compared; a difference makes the exit code 1.

      edgefolio replay tests/decision/traces/step.jsonl
    """
    found = _read(trace)
    result = replay_trace(found)
    differences = result.differences()
    if as_json:
        typer.echo(json.dumps(_document(found, result, differences), indent=2))
    else:
        _show(found, result, differences)
    return EXIT_FAILURE if differences else EXIT_OK


def _read(path: Path) -> Trace:
    try:
        with path.open(encoding="utf-8") as file:
            return parse_trace(_lines(file, path), name=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, f"the trace cannot be read ({error.__class__.__name__}).") from error


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of ``file``, within bounds: a device or a file of one line would take all memory."""
    size = 0
    while line := file.readline(_LONGEST_LINE + 1):
        size += len(line)
        if len(line) > _LONGEST_LINE or size > _LARGEST_TRACE:
            raise _unreadable(path, f"the trace has a line of {_LONGEST_LINE} characters, or {_LARGEST_TRACE} in all.")
        yield line


def _unreadable(path: Path, problem: str) -> UserError:
    return UserError(problem, field="TRACE", value=path, remedy="Name a file that `edgefolio run` recorded.")


def _show(trace: Trace, result: Replay, differences: tuple[str, ...]) -> None:
    console = Terminal(highlight=False)
    if trace.note:
        console.print(Text(trace.note))
    table = Table()
    table.add_column("s", justify="right", no_wrap=True)
    table.add_column("active", overflow="fold")
    table.add_column("decision", overflow="fold")
    table.add_column("why", overflow="fold", ratio=1)
    for step in result.changes:
        table.add_row(
            f"{step.at:.1f}",
            Text(step.active or "(none)"),
            Text(str(step.record)),
            Text(step.decision.message),
            style="bold" if step.decision.action is Action.SWITCH else None,
        )
    console.print(table)
    shares = ", ".join(f"{name} {_percent(part, result)}" for name, part in result.seconds_by_variant().items())
    objectives = ", ".join(f"{word} {_percent(part, result)}" for word, part in result.seconds_by_objectives().items())
    console.print(Text(f"{len(result.steps)} cycles in {result.seconds:.0f} s; {result.switches} switches."))
    console.print(Text(f"Active: {shares}. Objectives: {objectives}."))
    for difference in differences[:_DIFFERENCES_SHOWN]:
        console.print(Text("differs: ", style="bold red") + Text(difference))
    if len(differences) > _DIFFERENCES_SHOWN:
        console.print(Text(f"... and {len(differences) - _DIFFERENCES_SHOWN} more differences."))
    if result.expected and not differences:
        console.print(Text(f"All {len(result.expected)} expected decision changes came.", style="green"))


def _percent(part: float, result: Replay) -> str:
    return f"{100 * part / result.seconds:.0f} %" if result.seconds else "-"


def _document(trace: Trace, result: Replay, differences: tuple[str, ...]) -> dict[str, object]:
    return {
        "note": trace.note,
        "changes": [
            {
                "at": step.at,
                "active": step.active,
                "action": step.decision.action.value,
                "reason": step.decision.reason.value,
                "target": step.decision.target,
                "message": step.decision.message,
            }
            for step in result.changes
        ],
        "cycles": len(result.steps),
        "seconds": result.seconds,
        "switches": result.switches,
        "secondsByVariant": result.seconds_by_variant(),
        "secondsByObjectives": result.seconds_by_objectives(),
        "cyclesByReason": result.cycles_by_reason(),
        "differences": list(differences),
    }
