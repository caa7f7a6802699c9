"""Data bundle: three disjoint, normalised splits, with digests and preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio.manifest import MOST_LISTED_CLASSES, ClassSamples, DataDigests, Preprocessing
from edgefolio.specification.metric import Task
from edgefolio_pruner.data.stored import AnySamples, StoredSamples, slices

#: The input of a network that has one, in files and requests.
INPUT_NAME = "input"

Images = npt.NDArray[np.float32]
#: int64 [N] of a classifier; of other tasks whatever their targets are, with the samples on axis 0.
Labels = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Split:
    """One part of the data. ``images`` is float32 ``[N, C, H, W]``, normalised; ``labels`` is int64 ``[N]``.

    Other tasks have samples of any rank, and targets in place of labels. Of many samples ``images`` are stored
    elsewhere and normalised as they are read. ``others`` are further inputs of the network for the same samples.
    ``digest`` is the sha256 of the raw samples and labels, before normalisation.
    """

    images: Images | StoredSamples
    labels: Labels
    digest: str
    others: tuple[Images | StoredSamples, ...] = ()

    @property
    def samples(self) -> int:
        """Number of samples."""
        return int(self.labels.shape[0])

    def inputs(self, start: int, stop: int) -> tuple[Images, ...]:
        """The inputs of the network for the samples from ``start`` on, up to ``stop`` (excluded)."""
        return tuple(np.ascontiguousarray(given[start:stop]) for given in self.all_inputs)

    @property
    def all_inputs(self) -> tuple[Images | StoredSamples, ...]:
        """Every input of the network for all samples."""
        return (self.images, *self.others)


@dataclass(frozen=True, eq=False)
class DataBundle:
    """Train, validation and test data of one model; ``name`` is the training URI, ``notes`` what is to be told of it.

    ``test_is_held_out`` says that the test part was taken from the training data, ``normalization_of_model`` that mean
    and deviation are those that the model brings, ``has_labels`` that the data bring labels (without, they are zeros).
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    test_is_held_out: bool = False
    normalization_of_model: bool = False
    notes: tuple[str, ...] = ()
    task: Task = "Classification"
    has_labels: bool = True
    input_names: tuple[str, ...] = (INPUT_NAME,)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample (of its first input); of a picture channels, height and width."""
        return tuple(self.train.images.shape[1:])

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of each input, by name."""
        shapes = (tuple(given.shape[1:]) for given in self.train.all_inputs)
        return dict(zip(self.input_names, shapes, strict=True))

    @property
    def shown_shape(self) -> str:
        """The shape of one sample for people: ``3x32x32``, or ``image 3x32x32, age 1``."""
        shown = {name: "x".join(str(size) for size in shape) for name, shape in self.input_shapes.items()}
        return ", ".join(f"{name} {shape}" for name, shape in shown.items()) if len(shown) > 1 else shown.popitem()[1]

    @property
    def digests(self) -> DataDigests:
        """The manifest's record of this data."""
        return DataDigests(
            training_uri=self.name,
            training_sha256=self.train.digest,
            validation_sha256=self.validation.digest,
            test_sha256=self.test.digest,
            training_samples=self.train.samples,
            validation_samples=self.validation.samples,
            test_samples=self.test.samples,
        )

    @property
    def class_samples(self) -> ClassSamples | None:
        """The manifest's table of classes; ``None`` of more than it lists, and where a sample has more than one."""
        classes = len(self.class_names)
        if classes > MOST_LISTED_CLASSES or self.task != "Classification" or not self.has_labels:
            return None
        training, validation, test = (
            tuple(np.bincount(part.labels, minlength=classes).tolist())
            for part in (self.train, self.validation, self.test)
        )
        return ClassSamples(training=training, validation=validation, test=test)

    def calibration(self, samples: int, *, seed: int) -> Images:
        """``[min(samples, all), ...]`` unlabelled training samples, chosen by ``seed``; of the first input."""
        return self.calibration_inputs(samples, seed=seed)[0]

    def calibration_inputs(self, samples: int, *, seed: int) -> tuple[Images, ...]:
        """As :meth:`calibration`, of every input."""
        from edgefolio_pruner.randomness import shuffled

        chosen = np.sort(shuffled(self.train.samples, seed=seed, stream="calibration")[:samples])
        return tuple(given[chosen] for given in self.train.all_inputs)


def digest_of(images: AnySamples, labels: Labels, others: Sequence[AnySamples] = ()) -> str:
    """The sha256 over dtype, shape and bytes of all arrays."""
    digest = hashlib.sha256()
    for array in (images, labels, *others):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        for piece in slices(array):
            digest.update(np.ascontiguousarray(piece).data)
    return digest.hexdigest()
