"""Batches whose order and augmentation are pure functions of (seed, epoch, sample): training can resume anywhere."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from edgefolio_pruner.data import Split
from edgefolio_pruner.randomness import random_bits, shuffled

Augmentation = Literal["None", "Flip", "FlipCrop"]


class Batches:
    """The training samples, and every batch of every epoch as tensors by its number.

    A last batch that would be smaller is left out; each epoch leaves out others.
    """

    def __init__(self, split: Split, *, batch_size: int, augmentation: Augmentation, seed: int) -> None:
        self._images = split.images
        self._labels = torch.from_numpy(split.labels)
        self._batch_size = min(batch_size, split.samples)
        self._augmentation = augmentation
        self._seed = seed
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)

    @property
    def per_epoch(self) -> int:
        """Batches, that is optimizer steps, per epoch; at least 1."""
        return len(self._labels) // self._batch_size

    def indices(self, *, epoch: int, position: int) -> npt.NDArray[np.int64]:
        """The samples in batch ``position`` (0..per_epoch-1) of ``epoch``."""
        if epoch != self._epoch:
            self._order = shuffled(len(self._labels), seed=self._seed, stream="order", epoch=epoch)
            self._epoch = epoch
        return self._order[position * self._batch_size : (position + 1) * self._batch_size]

    def batch(self, *, epoch: int, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images ``[B, C, H, W]`` (augmented, channels last) and labels ``[B]``; other samples are not augmented."""
        indices = self.indices(epoch=epoch, position=position)
        images = torch.from_numpy(self._images[indices])
        if images.ndim != 4:
            return images.contiguous(), self._labels[torch.from_numpy(indices)]
        if self._augmentation != "None":
            bits = random_bits(indices, seed=self._seed, stream="augmentation", epoch=epoch)
            images = augment(images, bits, crop=self._augmentation == "FlipCrop")
        return images.contiguous(memory_format=torch.channels_last), self._labels[torch.from_numpy(indices)]


def augment(images: torch.Tensor, bits: npt.NDArray[np.uint64], *, crop: bool) -> torch.Tensor:
    """Mirror each image, or not, and with ``crop`` shift it by up to an eighth of its size, as its ``bits`` say.

    Shifted-in pixels are 0, the mean of normalised data.
    """
    mirrored = torch.from_numpy((bits & np.uint64(1)).astype(bool))
    images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if not crop:
        return images
    height, width = images.shape[2:]
    rows = _shifted(bits >> np.uint64(8), height)
    columns = _shifted(bits >> np.uint64(32), width)
    margins = [(size // 8, size // 8) for size in (width, height)]
    padded = torch.nn.functional.pad(images, [*margins[0], *margins[1]])
    numbers = torch.arange(len(images))[:, None, None]
    return padded.permute(0, 2, 3, 1)[numbers, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _shifted(bits: npt.NDArray[np.uint64], size: int) -> torch.Tensor:
    """Positions ``[B, size]`` in an axis padded by ``size // 8`` on both sides."""
    shifts = (bits & np.uint64(0xFFFF)) % np.uint64(2 * (size // 8) + 1)
    return torch.from_numpy(shifts.astype(np.int64))[:, None] + torch.arange(size)
