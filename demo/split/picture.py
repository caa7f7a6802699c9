"""The picture of the demonstration: latency over time, who answered each request, the objective."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from demo.split.figures import Act
from demo.split.requests import Request

__all__ = ["draw"]

_SPLIT, _FALLBACK, _WRONG, _OBJECTIVE, _SHADE = "#3b82c4", "#e08a2e", "#c62828", "#2b2b2b", "#f0eeea"
_LOWEST_MILLISECONDS = 0.1


def draw(
    path: Path,
    requests: Sequence[Request],
    acts: Sequence[Act],
    *,
    split: str,
    fallback: str,
    objective: float,
    title: str,
) -> None:
    """Write a picture to ``path`` (PNG or SVG by its ending): a point for each request at the second it was sent."""
    with mpl.rc_context({"font.size": 10, "text.parse_math": False, "svg.fonttype": "none"}):
        drawn = Figure(figsize=(11, 4.8), layout="constrained")
        FigureCanvasAgg(drawn)
        axes = drawn.add_subplot()
        for place, act in enumerate(acts):
            if act.disturbs:
                axes.axvspan(act.start, act.end, color=_SHADE, linewidth=0, zorder=0)
            # Names of short acts would run into each other on one line.
            axes.annotate(
                act.name,
                (act.start, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 4 + 12 * (place % 2)),
                textcoords="offset points",
                fontsize=8.5,
                annotation_clip=False,
            )
        for name, label, colour, marker in (
            (split, f"the split ({split})", _SPLIT, "."),
            (fallback, f"the fallback ({fallback})", _FALLBACK, "."),
            (None, "nobody who may, or none", _WRONG, "x"),
        ):
            own = [each for each in requests if (each.by if each.by in (split, fallback) else None) == name]
            axes.scatter(
                [each.sent for each in own],
                [max(_LOWEST_MILLISECONDS, each.milliseconds) for each in own],
                s=36,
                marker=marker,
                color=colour,
                linewidths=1.2 if marker == "x" else 0,
                alpha=0.7,
                label=f"{label}: {len(own)}",
            )
        axes.axhline(objective, color=_OBJECTIVE, linewidth=1.4, linestyle=(0, (5, 2)), label="objective (p95)")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("latency, ms")
        axes.set_xlabel("seconds since the first request")
        axes.set_xlim(0, acts[-1].end)
        axes.grid(visible=True, axis="y", linewidth=0.5, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, frameon=False, fontsize=9, markerscale=1.6
        )
        drawn.suptitle(title, fontsize=10, x=0.01, ha="left")
        drawn.savefig(path, dpi=110)
