"""Plot of a portfolio's splits: what each measured plan keeps of the accuracy for the bytes that it sends."""

from __future__ import annotations

from matplotlib.ticker import FuncFormatter

from edgefolio.manifest import Manifest
from edgefolio.shown_text import shortened
from edgefolio_pruner.html_report.drawing import MUTED, colour_of, figure, quiet_axes, to_svg

_LONGEST_NAME = 40


def draw_splits(manifest: Manifest) -> str:
    """Validation accuracy over the bytes into the busiest worker, a sample; empty where nothing was measured.

    The ring is the plan that was chosen, the dashed line the dense model on one node.
    """
    members = [(variant, variant.split) for variant in manifest.splits if variant.split is not None]
    if not any(split.plans for _, split in members):
        return ""
    with figure(9.2, 3.6) as drawn:
        axes = drawn.add_subplot()
        quiet_axes(axes)
        for variant, split in members:
            plans = sorted(split.plans, key=lambda plan: plan.bytes_into_busiest)
            places = [plan.bytes_into_busiest for plan in plans]
            colour = colour_of(variant.rank - 1)
            name = shortened(variant.name, _LONGEST_NAME)
            axes.plot(
                places, [plan.validation_percent for plan in plans], marker="o", color=colour, linewidth=1, label=name
            )
            axes.scatter(
                [split.bytes_into_busiest],
                [variant.validation_accuracy.percent],
                s=110,
                facecolors="none",
                edgecolors=colour,
                linewidths=1.6,
            )
        whole = max(manifest.single_node, key=lambda variant: variant.validation_accuracy.percent)
        axes.axhline(whole.validation_accuracy.percent, color=MUTED, linewidth=1, linestyle="--")
        # From no exchange at all on: 0 has a place, and so have a few bytes.
        axes.set_xscale("symlog", linthresh=100)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("bytes into the busiest worker, a sample (logarithmic from 100 on)")
        label = f"{manifest.score_word} on validation, {manifest.score_unit}"
        axes.set_ylabel(label.replace("$", r"\$"))
        axes.legend(loc="lower right")
        word = "Accuracy" if manifest.score is None else "Score"
        return to_svg(drawn, name="splits", description=f"{word} of every measured plan over the bytes that it sends")
