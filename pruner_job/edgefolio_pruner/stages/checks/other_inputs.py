"""Other ways in which given weights may have been fed: what a wrong normalization is looked for among."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

from edgefolio_pruner.inputs import MakingSource

#: So many equal numbers are written out.
_LISTED = 4
#: Values of training samples from which their mean is taken.
_VALUES_FOR_STATISTICS = 1 << 26


def other_inputs(
    module: nn.Module, source: MakingSource, images: npt.NDArray[np.float32]
) -> list[tuple[str, str, npt.NDArray[np.float32]]]:
    """What networks are often fed with: a phrase, the remedy, and the samples in that form."""
    given = source.data.preprocessing
    shape = (1, -1, *(1 for _ in images.shape[2:]))
    mean, deviation = (np.array(values, dtype=np.float32).reshape(shape) for values in (given.mean, given.std))
    plain = images * deviation + mean
    channels = images.shape[1]
    found: list[tuple[str, str, npt.NDArray[np.float32]]] = []

    def add(what: str, means: Sequence[float], deviations: Sequence[float]) -> None:
        if np.allclose(means, given.mean, atol=1e-4) and np.allclose(deviations, given.std, rtol=1e-2):
            return
        scaled = (plain - np.array(means, dtype=np.float32).reshape(shape)) / np.array(
            deviations, dtype=np.float32
        ).reshape(shape)
        numbers = f"{{mean: {_quoted(means)}, standardDeviation: {_quoted(deviations)}}}"
        found.append((what, f"Set data.normalization: {numbers}.", scaled.astype(np.float32)))

    for name in ("pretrained_cfg", "default_cfg"):
        own = getattr(module, name, None)
        own = own if isinstance(own, dict) else {}
        if len(own.get("mean", ())) == channels == len(own.get("std", ())):
            add("with the mean and deviation of the model's own configuration", own["mean"], own["std"])
    if source.normalization is not None or source.normalization_of_model:
        most = max(1, _VALUES_FOR_STATISTICS // int(np.prod(images.shape[1:])))
        train = source.data.train.images[: min(4096, most)] * deviation + mean
        axes = (0, *range(2, images.ndim))
        add(
            "with the training data's own mean and deviation",
            train.mean(axis=axes).tolist(),
            (train.std(axis=axes) + 1e-6).tolist(),
        )
    if channels == 3 and images.ndim == 4:
        add("with ImageNet's mean and deviation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    if given.scale == 1.0:
        add("with values as they are", [0.0] * channels, [1.0] * channels)
    else:
        add("with values from 0 to 1", [0.0] * channels, [1.0] * channels)
    add("with values from -1 to 1", [0.5] * channels, [0.5] * channels)
    if given.scale != 1.0:
        add("with values from 0 to 255", [0.0] * channels, [1 / 255] * channels)
    if channels == 3 and images.ndim == 4:
        reverse = "Reverse the input channels of the first layer's weights: samples here are RGB."
        found.append(("with the channels in reverse order (BGR)", reverse, np.ascontiguousarray(images[:, ::-1])))
    return found


def _quoted(values: Sequence[float]) -> str:
    """As the resource holds decimals: ``["0.5", "0.25"]``; of many that are alike, one."""
    if len(values) > _LISTED and len({round(value, 6) for value in values}) == 1:
        values = values[:1]
    return "[" + ", ".join(f'"{value:.6f}"' for value in values) + "]"
