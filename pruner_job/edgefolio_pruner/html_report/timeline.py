"""Timeline of a portfolio served under load, which a run adds to the report.

The load driver (the demonstration, a soak test) writes one :class:`RunTimeline` as JSON; the report draws it.
All times are seconds from the start of the load they belong to, all latencies milliseconds as clients saw them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from edgefolio.errors import UserError
from edgefolio.files import write_durably
from edgefolio.manifest import Record


class TimelinePhase(Record):
    """One stretch of a load, shaded in the plot: quiet, a CPU hog, an objective changed, ..."""

    name: str
    start: float
    end: float
    #: Whether this phase disturbs the server (drawn darker).
    disturbs: bool = False


class LatencyBin(Record):
    """The requests that began within half a second or so; latencies are None where none was answered."""

    at: float
    requests: int
    failed: int = 0
    p50_milliseconds: float | None
    p95_milliseconds: float | None
    maximum_milliseconds: float | None


class ObjectiveStep(Record):
    """From ``at`` on this latency (p95, milliseconds) was asked; ``None`` is no objective."""

    at: float
    p95_milliseconds: float | None


class ActiveStep(Record):
    """From ``at`` on requests were answered by this variant; ``None`` is nobody."""

    at: float
    variant: str | None


class DecisionMark(Record):
    """A decision that changed: what, why, and the sentence with its numbers."""

    at: float
    action: Literal["Hold", "Switch"]
    reason: str
    variant: str | None
    message: str
    #: How long the switch took, where it was one.
    switch_milliseconds: float | None = None


class LoadFigures(Record):
    """The figures of one load, as the table shows them."""

    requests: int
    failed: int
    wrong_version: int
    outside_objective_percent: float
    mean_accuracy_percent: float
    p50_milliseconds: float
    p95_milliseconds: float
    switches: int
    switch_milliseconds: float | None
    longest_gap_milliseconds: float
    p99_in_switch_windows_milliseconds: float | None
    p99_steady_milliseconds: float | None


class TimelineLoad(Record):
    """One load: what was served and how (``adaptive``, ``largest fixed``, ...), with its figures."""

    name: str
    description: str = ""
    seconds: Annotated[float, Field(gt=0)]
    phases: tuple[TimelinePhase, ...] = ()
    latencies: tuple[LatencyBin, ...] = ()
    objective: tuple[ObjectiveStep, ...] = ()
    active: tuple[ActiveStep, ...] = ()
    decisions: tuple[DecisionMark, ...] = ()
    figures: LoadFigures


class TimelineCheck(Record):
    """A check of the run, and whether it passed."""

    name: str
    passed: bool
    detail: str = ""


class RunTimeline(Record):
    """A run under one or more loads; the first is drawn largest."""

    schema_version: Literal["edgefolio.dev/timeline/v1"] = "edgefolio.dev/timeline/v1"
    title: str
    description: str = ""
    loads: Annotated[tuple[TimelineLoad, ...], Field(min_length=1, max_length=8)]
    checks: tuple[TimelineCheck, ...] = ()

    def write(self, path: Path) -> None:
        """Write it as JSON to ``path``, in one step."""
        write_durably(path, (self.model_dump_json(by_alias=True, indent=1) + "\n").encode(), field="--timeline")

    @classmethod
    def read(cls, path: Path, *, field: str = "--timeline") -> RunTimeline:
        """The timeline in the JSON file ``path``. Raises :class:`UserError` if it is none."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(
                f"the file cannot be read ({error.strerror}).", field=field, value=path, remedy="Correct the path."
            ) from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise UserError(
                f"it is no timeline: {where}: {first['msg']}.",
                field=field,
                value=path,
                remedy="Name the JSON file that the run wrote.",
            ) from error
