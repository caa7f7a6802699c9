"""Accuracy of a network, and a check that it fits the data."""

from __future__ import annotations

import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.data import DataBundle, Split


def evaluate(module: nn.Module, split: Split, *, batch_size: int = 256) -> int:
    """The number of samples in ``split`` whose largest logit is their label; in evaluation mode and float32."""
    training = module.training
    module.eval()
    correct = 0
    try:
        with torch.inference_mode():
            for start in range(0, split.samples, batch_size):
                images = torch.from_numpy(split.images[start : start + batch_size])
                labels = torch.from_numpy(split.labels[start : start + batch_size])
                logits = module(images.contiguous(memory_format=torch.channels_last))
                correct += int((logits.argmax(dim=1) == labels).sum())
    finally:
        module.train(training)
    return correct


def check_model_fits_data(module: nn.Module, data: DataBundle, *, field: str = "spec.source.architecture") -> None:
    """Raise :class:`UserError` for ``field`` unless ``module`` takes the samples and knows all classes."""
    shape = "x".join(str(size) for size in data.sample_shape)
    training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            logits = module(torch.from_numpy(data.train.images[:2]))
    except Exception as error:  # a module may raise anything for an unexpected shape
        raise UserError(
            f"the network refuses samples of the shape {shape} ({' '.join(str(error).split())[:200]}).",
            field=field,
            value=shape,
            remedy="Give the architecture the option for the channels or the image size, or set data.imageSize.",
        ) from error
    finally:
        module.train(training)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        raise UserError(
            "the network does not give one vector of logits per sample.",
            field=field,
            value=shape,
            remedy="Name a network that classifies.",
        )
    if logits.shape[1] < len(data.class_names):
        raise UserError(
            f"labels lie outside the classes: the network gives {logits.shape[1]} logits, "
            f"the data has {len(data.class_names)} classes.",
            field=f"{field}.options",
            value=logits.shape[1],
            remedy=f"Set num_classes to {len(data.class_names)}.",
        )
