"""Table of the classes with their samples, as lines of text."""

from __future__ import annotations

import numpy as np

from edgefolio.shown_text import shortened
from edgefolio_pruner.data.bundle import DataBundle

_ROWS = 40
_LONGEST_NAME = 40


def class_table(data: DataBundle) -> str:
    """Number, name and samples in each part of every class; of very many the first and the smallest ones.

    Of a task without classes what its targets are.
    """
    if data.task != "Classification" or not data.has_labels:
        return _target_lines(data)
    counts = np.stack(
        [
            np.bincount(part.labels, minlength=len(data.class_names))
            for part in (data.train, data.validation, data.test)
        ],
        axis=1,
    )
    names = [shortened(name, _LONGEST_NAME) for name in data.class_names]
    width = max(5, max(map(len, names)))
    heading = f"{len(names)} classes in the order of the network's outputs"
    header = f"{'':>6}  {'class':<{width}} {'training':>9} {'validation':>10} {'test':>9}"

    def row(number: int) -> str:
        training, validation, test = counts[number]
        return f"{number:>6}  {names[number]:<{width}} {training:>9,} {validation:>10,} {test:>9,}"

    shown = range(len(names)) if len(names) <= _ROWS else range(_ROWS // 2)
    lines = [heading, header, *map(row, shown)]
    if len(names) > _ROWS:
        smallest = sorted(range(_ROWS // 2, len(names)), key=lambda number: (counts[number].sum(), number))[
            : _ROWS // 4
        ]
        lines += [
            f"{'':>6}  ... and {len(names) - _ROWS // 2} more; the smallest of them:",
            *map(row, sorted(smallest)),
        ]
    return "\n".join(lines)


def _target_lines(data: DataBundle) -> str:
    if not data.has_labels:
        return "no labels: variants are compared with the dense model's answers"
    targets = data.train.labels
    if data.task == "MultiLabel":
        rows = zip(data.class_names, targets.mean(axis=0), strict=True)
        shown = [f"{'':>6}  {shortened(name, _LONGEST_NAME)}: {100 * float(share):.1f} %" for name, share in rows]
        return "\n".join(
            [
                f"{targets.shape[1]} labels in the order of the outputs, and how many training samples have each",
                *shown[:_ROWS],
            ]
        )
    if data.task == "Segmentation":
        counts = np.bincount(targets[targets >= 0].astype(np.int64), minlength=len(data.class_names))
        rows = zip(data.class_names, counts / counts.sum(), strict=True)
        shown = [f"{'':>6}  {shortened(name, _LONGEST_NAME)}: {100 * float(share):.1f} %" for name, share in rows]
        return "\n".join([f"masks of {len(counts)} classes, and their shares of the training pixels", *shown[:_ROWS]])
    shape = "x".join(str(size) for size in targets.shape[1:]) or "one number"
    low, mean, high = float(targets.min()), float(targets.mean()), float(targets.max())
    return f"targets: {shape} per sample, from {low:.4g} to {high:.4g}, on average {mean:.4g}"
