"""What clients saw in each phase of the demonstration, and for how long a neighbour slowed them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_client import Request
from rich.table import Table

#: So long must answers be fast again, all but one in twenty, for a slow time to be over.
CALM_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the demonstration, in seconds since the epoch."""

    name: str
    start: float
    end: float

    def of(self, requests: Sequence[Request]) -> list[Request]:
        """The requests that were due in it."""
        return [request for request in requests if self.start <= request.due < self.end]


def p95(requests: Sequence[Request]) -> float:
    """95 % of the requests took at most this many milliseconds; NaN without requests."""
    times = sorted(request.milliseconds for request in requests)
    return times[int(0.95 * (len(times) - 1))] if times else float("nan")


def last_slow_answer(requests: Sequence[Request], *, onset: float, objective: float) -> float | None:
    """Seconds from ``onset`` to the last slow answer of the trouble that began then.

    The trouble is over when at most one in twenty answers of :data:`CALM_SECONDS` is slow. 0: it never was; ``None``:
    it did not end.
    """
    after = sorted((request for request in requests if request.due >= onset), key=lambda request: request.due)
    if not any(_is_slow(request, objective) for request in after):
        return 0.0
    for number, request in enumerate(after):
        following = after[number + 1 :]
        if not _is_slow(request, objective) or (following and _is_slow(following[0], objective)):
            continue
        window = [later for later in following if later.due <= request.due + CALM_SECONDS]
        is_whole = after[-1].due >= request.due + CALM_SECONDS
        if is_whole and 20 * sum(_is_slow(later, objective) for later in window) <= len(window):
            seconds: float = request.due - onset
            return seconds
    return None


def table(phases: Sequence[Phase], requests: Mapping[str, Sequence[Request]], *, objective: float) -> Table:
    """Latency by phase and node, and which Triton versions answered."""
    found = Table(title="Latency as the clients saw it, and the Triton versions that answered", title_justify="left")
    for heading in ("phase", "node", "s", "sent", "failed", "p50 ms", "p95 ms", f"> {objective:g} ms", "versions"):
        found.add_column(heading, no_wrap=heading != "phase")
    for phase in phases:
        for node, recorded in requests.items():
            inside = phase.of(recorded)
            times = sorted(request.milliseconds for request in inside)
            if not times:
                continue
            slow = sum(_is_slow(request, objective) for request in inside)
            versions = sorted({request.version for request in inside if request.version is not None})
            found.add_row(
                *(phase.name, node, f"{phase.end - phase.start:.0f}", str(len(inside))),
                str(sum(request.error is not None for request in inside)),
                *(f"{times[len(times) // 2]:.0f}", f"{p95(inside):.0f}", f"{100 * slow / len(inside):.0f} %"),
                ", ".join(map(str, versions)),
            )
    return found


def _is_slow(request: Request, objective: float) -> bool:
    return request.error is not None or request.milliseconds > objective
