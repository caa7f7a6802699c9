"""Accuracy of a network, and a check that it fits the data."""

from __future__ import annotations

import torch
from torch import nn

from edgefolio_pruner.data import DataBundle, Split
from edgefolio_pruner.export import flat_outputs
from edgefolio_pruner.scoring.outputs import look_at_outputs


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
                # Channels last where there are pictures; some networks give further outputs.
                logits = flat_outputs(module(as_batch(images)))[0]
                correct += int((logits.argmax(dim=1) == labels).sum())
    finally:
        module.train(training)
    return correct


def as_batch(images: torch.Tensor) -> torch.Tensor:
    """Pictures with their channels last, which is faster; other samples as they are."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images.contiguous()


def check_model_fits_data(module: nn.Module, data: DataBundle, *, field: str = "spec.source.architecture") -> None:
    """Raise :class:`UserError` for ``field`` unless ``module`` takes the samples and knows all classes."""
    look_at_outputs(module, data, field=field)
