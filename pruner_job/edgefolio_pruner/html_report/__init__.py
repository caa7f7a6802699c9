"""The report of a portfolio: one self-contained HTML file."""

from edgefolio_pruner.html_report.html import render_report, write_report
from edgefolio_pruner.html_report.timeline import (
    ActiveStep,
    DecisionMark,
    LatencyBin,
    LoadFigures,
    ObjectiveStep,
    RunTimeline,
    TimelineCheck,
    TimelineLoad,
    TimelinePhase,
)

__all__ = [
    "ActiveStep",
    "DecisionMark",
    "LatencyBin",
    "LoadFigures",
    "ObjectiveStep",
    "RunTimeline",
    "TimelineCheck",
    "TimelineLoad",
    "TimelinePhase",
    "render_report",
    "write_report",
]
