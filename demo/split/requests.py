"""Requests as the client of a split writes them down: a line for each, with two times and who answered."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FAILED", "WRONG", "Request", "client_command", "requests_in", "wait_for_answer"]

#: Who answered: nobody, or nobody who may have.
FAILED, WRONG = "failed", "wrong"


@dataclass(frozen=True)
class Request:
    """One request: seconds of the monotonic clock, and who answered."""

    sent: float
    answered: float
    by: str

    @property
    def milliseconds(self) -> float:
        """What the client waited."""
        return 1e3 * (self.answered - self.sent)


def client_command(
    endpoint: str, lines: Path, answers: Path, *, model: str, tensors: tuple[str, str], tolerance: float
) -> list[str]:
    """The command of a client; ``tensors`` are the names of the model's input and output."""
    command = [sys.executable, "-m", "demo.split.client", endpoint, str(lines), str(answers), "--model", model]
    return [*command, "--input", tensors[0], "--output", tensors[1], "--tolerance", str(tolerance)]


def requests_in(lines: Path) -> list[Request]:
    """What the client has written so far."""
    found: list[Request] = []
    if not lines.exists():
        return found
    for line in lines.read_text().splitlines():
        parts = line.split()
        if len(parts) == 3:
            found.append(Request(float(parts[0]), float(parts[1]), parts[2]))
    return found


def wait_for_answer(lines: Path, by: str, *, since: float, seconds: float) -> float | None:
    """When ``by`` answered a request first that was sent after ``since``; ``None`` if it did not in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = [each for each in requests_in(lines) if each.sent > since and each.by == by]
        if found:
            return found[0].answered
        time.sleep(0.2)
    return None
