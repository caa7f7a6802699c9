"""The report of a portfolio: one self-contained HTML file."""

from edgefolio_pruner.report.timeline import (
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
]
