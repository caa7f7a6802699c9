"""View model of the classes: samples and recall in every variant, the greatest losses first."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio.manifest import Manifest, Variant
from edgefolio.shown_text import shortened

#: Rows that are shown at once; the others unfold.
SHOWN_AT_ONCE = 20
_LONGEST_NAME = 40
#: Points of recall lost against the most accurate variant that are coloured fully.
_FULL_COLOUR_POINTS = 20.0


@dataclass(frozen=True, kw_only=True)
class RecallCell:
    """Recall of one class in one variant; ``loss`` (0 to 1) is how strongly a loss is coloured."""

    recall: str
    loss: float


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class: its samples in training, validation and test, and its recall in every variant."""

    name: str
    samples: tuple[int, ...]
    cells: tuple[RecallCell, ...]


def class_rows(manifest: Manifest) -> tuple[list[Variant], list[ClassRow]]:
    """The variants with figures by class, most accurate first, and the classes: those that lose most come first.

    Both are empty for a manifest from before these figures, or with more classes than it lists.
    """
    variants = [
        variant
        for variant in reversed(manifest.variants)
        if variant.test_classes is not None and variant.test_classes.recall_percents
    ]
    if not variants:
        return [], []
    counted = manifest.class_samples
    recalls = [variant.test_classes.recall_percents for variant in variants if variant.test_classes is not None]
    rows = []
    for number, label in enumerate(manifest.labels):
        values = [recall[number] for recall in recalls]
        best = values[0]
        losses = [0.0 if best is None or value is None else max(0.0, best - value) for value in values]
        rows.append(
            (
                -max(losses),
                number,
                ClassRow(
                    name=shortened(label, _LONGEST_NAME),
                    samples=()
                    if counted is None
                    else (counted.training[number], counted.validation[number], counted.test[number]),
                    cells=tuple(
                        RecallCell(
                            recall="\N{EN DASH}" if value is None else f"{value:.1f}",
                            loss=min(1.0, loss / _FULL_COLOUR_POINTS),
                        )
                        for value, loss in zip(values, losses, strict=True)
                    ),
                ),
            )
        )
    return variants, [row for _, _, row in sorted(rows, key=lambda entry: entry[:2])]
