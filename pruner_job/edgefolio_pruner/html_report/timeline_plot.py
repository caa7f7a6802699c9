"""Plot of a load: latency against the objective, and the active variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from edgefolio.shown_text import shortened
from edgefolio_pruner.html_report.drawing import ALERT, GRID, INK, MUTED, SHADE, colour_of, figure, quiet_axes, to_svg
from edgefolio_pruner.html_report.timeline import TimelineLoad

#: About how many letters of phase names fit across the figure.
_LETTERS_ACROSS = 120
#: Of a phase; a longer one leaves no room for the plot.
_LONGEST_NAME = 40


def draw_load(load: TimelineLoad, *, variants: Sequence[str], name: str, tall: bool) -> str:
    """Latency (p50, p95) over time with the objective, the disturbances, the switches and the active variant.

    ``variants`` are all names of the portfolio, least accurate first: they set rows and colours.
    """
    rows = {variant: row for row, variant in enumerate(variants)}
    with figure(9.6, 5.4 if tall else 3.6) as drawn:
        upper, lower = drawn.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": (3.4, 0.32 * len(variants) + 0.35)}
        )
        for axes in (upper, lower):
            for phase in load.phases:
                if phase.disturbs:
                    axes.axvspan(phase.start, phase.end, color=SHADE, linewidth=0, zorder=0)
        _draw_latencies(upper, load, axes_points=72 * (3.4 if tall else 2.0))
        _draw_active(lower, load, rows)
        lower.set_xlim(0, load.seconds)
        lower.set_xlabel("seconds since the load began")
        return to_svg(drawn, name=name, description=f"Latency and active variant over time: {load.name}")


def _draw_latencies(axes: Any, load: TimelineLoad, *, axes_points: float) -> None:
    quiet_axes(axes, vertical=False)
    answered = [entry for entry in load.latencies if entry.p95_milliseconds is not None]
    times = [entry.at for entry in answered]
    axes.fill_between(
        times,
        [entry.p50_milliseconds for entry in answered],
        [entry.p95_milliseconds for entry in answered],
        color=MUTED,
        alpha=0.22,
        linewidth=0,
    )
    axes.plot(times, [entry.p95_milliseconds for entry in answered], color=INK, linewidth=1.5, label="p95")
    axes.plot(times, [entry.p50_milliseconds for entry in answered], color=MUTED, linewidth=1.1, label="p50")
    steps = [step for step in load.objective if step.p95_milliseconds is not None]
    if steps:
        ends = _ends([step.at for step in load.objective], load.seconds)
        label = "objective (p95)"
        for step, end in zip(load.objective, ends, strict=True):
            if step.p95_milliseconds is not None:
                axes.hlines(
                    step.p95_milliseconds, step.at, end, color=ALERT, linewidth=1.8, linestyle=(0, (5, 2)), label=label
                )
                label = "_again"
    failed = [entry for entry in load.latencies if entry.failed]
    if failed and answered:
        top = max(entry.p95_milliseconds for entry in answered if entry.p95_milliseconds is not None)
        axes.scatter([entry.at for entry in failed], [top] * len(failed), marker="x", color=ALERT, label="failed")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("latency, ms")
    row = 0
    for phase, following in pairwise([*load.phases, None]):
        assert phase is not None
        if phase.start > 0:
            axes.axvline(phase.start, color=GRID, linewidth=1)
        name = shortened(phase.name, _LONGEST_NAME)
        axes.annotate(
            name,
            (phase.start, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 4 + 11 * row),
            textcoords="offset points",
            color=MUTED,
            fontsize=8.5,
            annotation_clip=False,
        )
        # A name that would run into the next one lifts that one a row.
        room = 0 if following is None else (following.start - phase.start) / load.seconds * _LETTERS_ACROSS
        row = (row + 1) % 3 if following is not None and len(name) > room else 0
    # Above the frame and the phases' names: nothing that is drawn can lie under it.
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0 + 46 / axes_points),
        ncols=4,
        fontsize=9,
        handlelength=1.8,
        borderaxespad=0,
    )


def _draw_active(axes: Any, load: TimelineLoad, rows: Mapping[str, int]) -> None:
    ends = _ends([step.at for step in load.active], load.seconds)
    for step, end in zip(load.active, ends, strict=True):
        row = None if step.variant is None else rows.get(step.variant)
        if row is not None:
            axes.barh(row, end - step.at, left=step.at, height=0.72, color=colour_of(row), linewidth=0)
    for mark in load.decisions:
        if mark.action == "Switch":
            axes.axvline(mark.at, color=INK, linewidth=0.9, alpha=0.55)
    axes.set_yticks(list(rows.values()), list(rows), color=INK, fontsize=9)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def _ends(starts: Sequence[float], end: float) -> list[float]:
    """Where stretches that begin at ``starts`` end: each where the next one begins, the last at ``end``."""
    return [*starts[1:], end][: len(starts)]
