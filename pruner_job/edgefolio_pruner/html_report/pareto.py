"""Pareto plot of a portfolio: accuracy over latency, with intervals and sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from edgefolio.manifest import Manifest, Variant
from edgefolio.shown_text import shortened
from edgefolio_pruner.html_report.drawing import ALERT, INK, MUTED, colour_of, figure, quiet_axes, to_svg
from edgefolio_pruner.html_report.layers import precision_of

#: Height of a line of text, in points.
_LABEL_HEIGHT = 13.0
#: Of a candidate; a longer one leaves no room for the plot.
_LONGEST_NAME = 63
#: Shape of a variant's point by its precision.
_MARKERS = {"float32": "o", "int8": "D"}
#: A step between neighbours by at least this factor of latency is marked as a gap.
_GAP_FACTOR = 1.5


@dataclass(frozen=True)
class _Point:
    variant: Variant
    milliseconds: float


def draw_pareto(manifest: Manifest) -> str:
    """Test accuracy (with its 95 % interval) over the median latency of a request batch; the area is the file's size.

    The shape tells the precision. Crosses are candidates that were left out, at their validation accuracy; brackets
    below mark gaps between neighbours.
    """
    batch = manifest.request_batch_size
    points = []
    for variant in manifest.single_node:
        latency = variant.profiles[0].latency(batch)
        if latency is not None:
            points.append(_Point(variant=variant, milliseconds=latency.p50_milliseconds))
    with figure(9.2, 4.6) as drawn:
        axes = drawn.add_subplot()
        quiet_axes(axes)
        _draw_variants(axes, points)
        _draw_rejected(axes, manifest)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        values = [point.milliseconds for point in points]
        values += [milliseconds for _, milliseconds, _ in _measured_rejected(manifest)]
        axes.set_xlim(min(values) / 1.35, max(values) * 1.6)
        _draw_gaps(axes, points)
        _draw_legend(axes, points)
        axes.set_xlabel(f"median latency of a batch of {batch}, ms (logarithmic)")
        axes.set_ylabel(f"{manifest.score_word}, {manifest.score_unit}".replace("$", r"\$"))
        word = "Accuracy" if manifest.score is None else "Score"
        return to_svg(drawn, name="pareto", description=f"{word} over latency of every variant")


def _draw_variants(axes: Any, points: list[_Point]) -> None:
    """A circle with its interval and name for each variant, and a line through all."""
    largest = max(point.variant.size_bytes for point in points)
    by_latency = sorted(points, key=lambda point: point.milliseconds)
    axes.plot(
        [point.milliseconds for point in by_latency],
        [point.variant.test_accuracy.percent for point in by_latency],
        color=MUTED,
        linewidth=1,
        alpha=0.5,
        zorder=1,
    )
    raised = _label_shifts(points)
    for point in points:
        accuracy = point.variant.test_accuracy
        colour = colour_of(point.variant.rank - 1)
        axes.errorbar(
            point.milliseconds,
            accuracy.percent,
            # Rounding put an end on the wrong side in manifests of before.
            yerr=[
                [max(0.0, accuracy.percent - accuracy.low_percent)],
                [max(0.0, accuracy.high_percent - accuracy.percent)],
            ],
            color=colour,
            elinewidth=1.4,
            capsize=3,
            zorder=2,
        )
        area = 40 + 520 * point.variant.size_bytes / largest
        axes.scatter(
            point.milliseconds,
            accuracy.percent,
            s=area,
            marker=_MARKERS.get(precision_of(point.variant), "o"),
            color=colour,
            alpha=0.75,
            linewidth=0,
            zorder=3,
        )
        radius = math.sqrt(area) / 2
        axes.annotate(
            point.variant.name,
            (point.milliseconds, accuracy.percent),
            xytext=(radius + 5, -3 + raised[point.variant.name]),
            textcoords="offset points",
            color=INK,
            fontweight="bold",
            zorder=4,
        )


def _draw_gaps(axes: Any, points: list[_Point]) -> None:
    """A bracket along the bottom for each gap: its factor of latency, and the accuracy between its ends."""
    by_latency = sorted(points, key=lambda point: point.milliseconds)
    gaps = [(fast, slow) for fast, slow in pairwise(by_latency) if slow.milliseconds >= _GAP_FACTOR * fast.milliseconds]
    if not gaps:
        return
    # Room below the points; the brackets stand at a fixed height of the axes.
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.14 * (high - low), high)
    left, right = axes.get_xlim()
    for fast, slow in gaps:
        factor = slow.milliseconds / fast.milliseconds
        axes.annotate(
            "",
            (fast.milliseconds, 0.03),
            (slow.milliseconds, 0.03),
            xycoords=("data", "axes fraction"),
            arrowprops={"arrowstyle": "|-|,widthA=0.25,widthB=0.25", "color": MUTED, "linewidth": 1},
        )
        points_apart = slow.variant.test_accuracy.percent - fast.variant.test_accuracy.percent
        is_wide = math.log(factor) > 0.16 * math.log(right / left)
        axes.text(
            math.sqrt(fast.milliseconds * slow.milliseconds),
            0.05,
            f"{factor:.1f}\N{MULTIPLICATION SIGN}" + (f", {points_apart:.1f} points" if is_wide else ""),
            transform=axes.get_xaxis_transform(),
            ha="center",
            color=MUTED,
            fontsize=8.5,
        )


def _draw_legend(axes: Any, points: list[_Point]) -> None:
    """What the shapes mean, where there are two."""
    found = {precision_of(point.variant) for point in points}
    if len(found) < 2:
        return
    handles = [
        axes.scatter([], [], marker=marker, color=MUTED, linewidth=0, label=precision)
        for precision, marker in _MARKERS.items()
        if precision in found
    ]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 0.1))


def _measured_rejected(manifest: Manifest) -> list[tuple[str, float, float]]:
    """Name, median latency and validation accuracy of the candidates that were left out after they were measured."""
    return [
        (entry.name, entry.p50_milliseconds, entry.validation_accuracy_percent)
        for entry in manifest.rejected
        if entry.p50_milliseconds is not None and entry.validation_accuracy_percent is not None
    ]


def _draw_rejected(axes: Any, manifest: Manifest) -> None:
    for name, milliseconds, percent in _measured_rejected(manifest):
        axes.scatter(milliseconds, percent, marker="x", s=36, color=ALERT, linewidth=1.4)
        axes.annotate(
            shortened(name, _LONGEST_NAME),
            (milliseconds, percent),
            # Names of variants stand to the right of their points.
            xytext=(-6, -3),
            textcoords="offset points",
            ha="right",
            color=MUTED,
            fontsize=9,
        )


def _label_shifts(points: list[_Point]) -> dict[str, float]:
    """How far, in points, each variant's label is moved up or down so that those of near neighbours can be read."""
    shifts: dict[str, float] = {}
    span = max((point.variant.test_accuracy.percent for point in points), default=0.0) - min(
        (point.variant.test_accuracy.percent for point in points), default=0.0
    )
    cluster: list[_Point] = []
    for point in sorted(points, key=lambda point: point.milliseconds):
        if cluster and not _near(cluster[-1], point, span):
            shifts |= _spread(cluster)
            cluster = []
        cluster.append(point)
    return shifts | _spread(cluster)


def _near(one: _Point, other: _Point, span: float) -> bool:
    """Whether two labels would overlap."""
    apart = abs(one.variant.test_accuracy.percent - other.variant.test_accuracy.percent)
    return other.milliseconds < 1.35 * one.milliseconds and apart < 0.12 * span


def _spread(cluster: list[_Point]) -> dict[str, float]:
    ordered = sorted(cluster, key=lambda point: point.variant.test_accuracy.percent)
    middle = (len(ordered) - 1) / 2
    return {point.variant.name: _LABEL_HEIGHT * (place - middle) for place, point in enumerate(ordered)}
