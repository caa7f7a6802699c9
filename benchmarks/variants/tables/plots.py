"""Plots of the results: points lost, and by how much each peer is behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.variants.nets import NETS
from benchmarks.variants.tables.rows import Row

_STAGES = (("plain", "as pruned"), ("norms", "norms re-estimated"), ("tuned", "one epoch for both"))


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Write ``variants-torch-pruning.svg``: accuracy of both at half and a quarter of the MACs, each seed a mark."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "edgefolio"
    from matplotlib import pyplot

    compared = [row for row in rows if row.claim == "torch-pruning"]
    nets = [name for name in NETS if any(row.net == name for row in compared)]
    if not nets:
        return
    figure, axes = pyplot.subplots(1, len(nets), figsize=(3.2 * len(nets), 3.4), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], nets, strict=True):
        measures = {f"{kind}-{percent}": f"{words}, {percent} %" for percent in (50, 25) for kind, words in _STAGES}
        for place, measure in enumerate(measures):
            own = [row for row in compared if (row.net, row.measure) == (name, measure)]
            axis.plot([place] * len(own), [row.detail["ours"] for row in own], "o", color="C0", label="one-shot")
            axis.plot([place] * len(own), [row.detail["best"] for row in own], "x", color="C3", label="Torch-Pruning")
        axis.set_xticks(range(len(measures)), list(measures.values()), rotation=60, ha="right", fontsize=7)
        axis.set_title(NETS[name].title, fontsize=9)
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].set_ylabel("test accuracy, %")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles[:2], names[:2], loc="lower left", fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / "variants-torch-pruning.svg", metadata={"Date": None})
    pyplot.close(figure)
