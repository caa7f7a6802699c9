"""Figures as self-contained inline SVG that follow the page's light or dark colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

#: Colours that stand for the page's own; they are replaced by CSS variables in the finished SVG.
INK, MUTED, GRID, ALERT, SHADE = "#010101", "#010102", "#010103", "#010104", "#010105"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", ALERT: "--alert", SHADE: "--shade"}

#: Mid brightness, legible on white and near-black; neighbours differ for colour-blind readers.
_PALETTE = (
    "#3b82c4",
    "#e08a2e",
    "#2f9e77",
    "#c0589a",
    "#8a7fd6",
    "#b59a1f",
    "#d1605e",
    "#4aa5b8",
    "#7d8f3a",
    "#a0765b",
    "#6f8fc9",
    "#c97b3f",
    "#5aa469",
    "#b3679b",
    "#9489c9",
    "#9a8f50",
)

_SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    # Names are no formulas: "$" in one would be an error, or a long computation.
    "text.parse_math": False,
}


def colour_of(position: int) -> str:
    """The colour of the variant at this position of the portfolio (0 is the least accurate)."""
    return _PALETTE[position % len(_PALETTE)]


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of this size in inches with the report's settings."""
    with mpl.rc_context(_SETTINGS):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(drawn)
        yield drawn


def to_svg(drawn: Figure, *, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element; ``name`` keeps its ids apart from other figures', ``description`` is read
    by screen readers."""
    buffer = io.StringIO()
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        drawn.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # The page sizes the figure: its width in points is dropped, its shape stays in the view box.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    # Several figures share a page: ids, and the references to them, carry the figure's name.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(description)}" ', 1)


def quiet_axes(axes: Any, *, vertical: bool = True) -> None:
    """Only the grid lines that help reading."""
    axes.grid(visible=True, axis="y")
    if vertical:
        axes.grid(visible=True, axis="x")
    axes.tick_params(length=0)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
