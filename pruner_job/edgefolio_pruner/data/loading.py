"""Loader of ``spec.data`` into a :class:`DataBundle`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from edgefolio.errors import UserError
from edgefolio.manifest import Preprocessing
from edgefolio.specification import DataSpecification, Normalization
from edgefolio.specification.metric import Task
from edgefolio.untrusted.text import shortened
from edgefolio.uris import redacted
from edgefolio_pruner.available_memory import require_memory
from edgefolio_pruner.data.arrays import Request
from edgefolio_pruner.data.bundle import DataBundle, Images, Split, digest_of
from edgefolio_pruner.data.class_order import ClassOrder, in_order
from edgefolio_pruner.data.digits import read_digits
from edgefolio_pruner.data.fashion_mnist import read_fashion_mnist
from edgefolio_pruner.data.image_folder import is_folder, read_image_folder
from edgefolio_pruner.data.npz import read_npz
from edgefolio_pruner.data.raw import (
    TEST,
    TRAIN,
    VALIDATION,
    VALUES_AT_ONCE,
    RawData,
    RawSplit,
    check_class_names,
    check_split,
    slices,
)
from edgefolio_pruner.data.shared_samples import shared_samples
from edgefolio_pruner.data.splitting import hold_out
from edgefolio_pruner.progress import Progress, no_progress

BUILTIN = ("builtin:digits", "builtin:fashion-mnist")

#: A near-constant channel is shifted but not scaled.
_SMALLEST_DEVIATION = 1e-3


def load_data(
    specification: DataSpecification,
    *,
    seed: int,
    field: str = "spec.data",
    model_class_names: tuple[str, ...] = (),
    fits: Callable[[tuple[int, ...]], bool] | None = None,
    progress: Progress = no_progress,
) -> DataBundle:
    """The data that ``specification`` names, in three disjoint parts.

    Given splits are used; missing ones are held out of the training data, stratified by class and drawn by
    ``seed``. Values become ``(raw * scale - mean) / std``, with mean and std per channel as ``specification`` says, or
    over the training part. The classes are in the order of ``specification``, else of ``model_class_names`` if these
    are all there. ``fits`` tells whether the network takes samples of a shape, where their axes may be meant in
    several ways. Raises :class:`UserError` for the field that is at fault.
    """
    task = specification.task
    order = ClassOrder(
        names=specification.class_names or (), by=specification.class_order, model_names=model_class_names
    )
    fields = {TRAIN: f"{field}.trainingURI", VALIDATION: f"{field}.validationURI", TEST: f"{field}.testURI"}
    progress(stage="data", fraction=0.0, message=f"reading {redacted(specification.training_uri)}")
    read = partial(
        _read_in_order,
        image_size=specification.image_size,
        order=order,
        order_field=field,
        task=task,
        needs_labels=specification.metric is None or specification.metric.name != "Agreement",
        fits=fits,
    )
    data = read(specification.training_uri, TRAIN, field=fields[TRAIN])
    notes = list(data.notes)
    parts = dict(data.parts)
    names = dict.fromkeys(parts, specification.training_uri)
    for part, uri in ((VALIDATION, specification.validation_uri), (TEST, specification.test_uri)):
        if uri is None:
            continue
        progress(stage="data", fraction=0.3, message=f"reading {redacted(uri)}")
        other = read(uri, part, field=fields[part])
        notes += [f"{redacted(uri)}: {note}" for note in other.notes]
        parts[part] = _only_part(other, part)
        names[part] = uri
        if (
            other.scale != data.scale
            or other.has_labels != data.has_labels
            or not (set(other.class_names) <= set(data.class_names) or task == "Segmentation")
        ):
            raise UserError(
                "its classes or its element type are not those of the training data.",
                field=fields[part],
                value=uri,
                remedy="Give all parts the same classes, as the same kind of data.",
            )
        if task == "Classification" and data.has_labels:
            parts[part] = _renumbered(parts[part], other.class_names, data.class_names)
    classifies = task == "Classification" and data.has_labels
    check_class_names(data.class_names, field=fields[TRAIN], name=names.get(TRAIN, specification.training_uri))
    if classifies and len(data.class_names) < 2:
        raise UserError(
            f"there is one class only, {data.class_names[0]!r}: nothing is to be told apart.",
            field=fields[TRAIN],
            value=specification.training_uri,
            remedy="Give data of two classes or more.",
        )
    for part, split in parts.items():
        check_split(split, classes=len(data.class_names) if classifies else 0, field=fields[part], name=names[part])
    _check_targets(parts, fields=fields, names=names)
    progress(stage="data", fraction=0.6, message="splitting and normalising")
    notes += shared_samples(parts, fields=fields, names=names)
    test_is_held_out = TEST not in parts
    for part, percent in ((TEST, specification.test_percent), (VALIDATION, specification.validation_percent)):
        if part not in parts:
            parts[TRAIN], parts[part] = _split_off(parts[TRAIN], part, percent, seed, specification, fields[TRAIN])
    if classifies:
        notes += _untrained(parts[TRAIN], data.class_names, specification, field=fields[TRAIN])
    if specification.image_size is not None:
        parts = {
            part: _resized(split, specification.image_size, field=fields[part], name=names.get(part))
            for part, split in parts.items()
        }
    shape = parts[TRAIN].images.shape[1:]
    for part, split in parts.items():
        if split.images.shape[1:] != shape:
            raise UserError(
                f"its samples have the shape {_shown(split.images.shape[1:])}, those for training {_shown(shape)}.",
                field=fields[part],
                value=names.get(part),
                remedy="Give all parts samples of one shape, or set data.imageSize.",
            )
    if specification.normalization is None:
        preprocessing = _preprocessing(parts[TRAIN], data.scale)
    else:
        preprocessing = _given(specification.normalization, data.scale, channels=shape[0], field=field)
    return DataBundle(
        name=redacted(specification.training_uri),
        train=_normalised(parts[TRAIN], preprocessing),
        validation=_normalised(parts[VALIDATION], preprocessing),
        test=_normalised(parts[TEST], preprocessing),
        class_names=data.class_names,
        preprocessing=preprocessing,
        test_is_held_out=test_is_held_out,
        notes=tuple(notes),
        task=task,
        has_labels=data.has_labels,
    )


def _check_targets(parts: Mapping[str, RawSplit], *, fields: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Raise :class:`UserError` unless the targets of all parts are of one shape."""
    shape = next(iter(parts.values())).labels.shape[1:]
    for part, split in parts.items():
        if split.labels.shape[1:] != shape:
            raise UserError(
                f"its targets have the shape {_shown(split.labels.shape[1:])}, those of other parts {_shown(shape)}.",
                field=fields[part],
                value=names.get(part),
                remedy="Give all parts targets of one shape.",
            )


def _untrained(
    split: RawSplit, class_names: tuple[str, ...], specification: DataSpecification, *, field: str
) -> list[str]:
    """A note of classes without training samples, which only a list of all classes may have."""
    missing = np.flatnonzero(np.bincount(split.labels, minlength=len(class_names)) == 0)
    if missing.size == 0:
        return []
    shown = ", ".join(repr(shortened(class_names[number], 60)) for number in missing[:5])
    if missing.size > 5:
        shown += f" and {missing.size - 5} more"
    if specification.class_names is None:
        raise UserError(
            f"there are no training samples of these classes: {shown}.",
            field=field,
            value=specification.training_uri,
            remedy="Give every class samples for training, or name all classes in data.classNames if that is meant.",
        )
    return [f"{missing.size} of the {len(class_names)} classes have no training samples: {shown}"]


def _read_in_order(
    uri: str,
    needed: str,
    *,
    image_size: int | None,
    order: ClassOrder,
    order_field: str,
    task: Task,
    needs_labels: bool,
    fits: Callable[[tuple[int, ...]], bool] | None,
    field: str,
) -> RawData:
    request = Request(uri=uri, needed=needed, field=field, task=task, needs_labels=needs_labels, fits=fits)
    data = _read(request, image_size=image_size, class_names=order.names)
    classifies = task == "Classification" and data.has_labels
    for split in data.parts.values():
        check_split(split, classes=len(data.class_names) if classifies else 0, field=field, name=uri)
    if classifies:
        return in_order(data, order, field=order_field, uri=uri)
    return replace(data, class_names=_names_of_outputs(data, order, field=order_field, uri=uri))


def _names_of_outputs(data: RawData, order: ClassOrder, *, field: str, uri: str) -> tuple[str, ...]:
    """Names of labels, or of the classes of masks, as the user gives them."""
    if not order.names:
        return data.class_names
    if len(order.names) < len(data.class_names) or not data.class_names:
        raise UserError(
            f"there are {len(order.names)} names, but the targets have {len(data.class_names)} classes or labels.",
            field=f"{field}.classNames",
            value=uri,
            remedy="Name all of them, in the order of the network's outputs, or leave it out.",
        )
    return order.names


def _read(request: Request, *, image_size: int | None, class_names: tuple[str, ...]) -> RawData:
    uri, needed, field = request.uri, request.needed, request.field
    if (uri.startswith("builtin:") or is_folder(uri, field=field)) and request.task != "Classification":
        raise UserError(
            f"it holds classes, not targets of data.task {request.task}.",
            field=field,
            value=uri,
            remedy="Name an .npz file, a table, or a factory that gives samples with their targets.",
        )
    if uri.startswith("builtin:"):
        if uri == "builtin:digits":
            return read_digits()
        if uri == "builtin:fashion-mnist":
            return read_fashion_mnist(field=field)
        raise UserError(
            "there is no such built-in data set.", field=field, value=uri, remedy=f"Use {' or '.join(BUILTIN)}."
        )
    if is_folder(uri, field=field):
        data = read_image_folder(uri, image_size=image_size, class_names=class_names, field=field)
        if needed not in data.parts and TRAIN not in data.parts:
            raise UserError(
                f"the folder has parts, but none for {needed}.",
                field=field,
                value=uri,
                remedy=f"Put the images into <folder>/{needed}/<class>/.",
            )
        return data
    return read_npz(request)


def _only_part(data: RawData, part: str) -> RawSplit:
    # A file for one purpose holds plain x and y, or the part under its own name.
    return data.parts[part] if part in data.parts else data.parts[TRAIN]


def _renumbered(split: RawSplit, own: tuple[str, ...], wanted: tuple[str, ...]) -> RawSplit:
    if own == wanted[: len(own)]:
        return split
    table = np.array([wanted.index(name) for name in own], dtype=np.int64)
    return RawSplit(images=split.images, labels=table[split.labels])


def _split_off(
    split: RawSplit, part: str, percent: int, seed: int, specification: DataSpecification, field: str
) -> tuple[RawSplit, RawSplit]:
    # Only classes can be held out in equal parts.
    labels = split.labels if specification.task == "Classification" else np.zeros(len(split.labels), dtype=np.int64)
    kept, held = hold_out(labels, percent=percent, seed=seed, stream=part)
    if held.size == 0:
        raise UserError(
            f"there are too few samples to hold some out for {part}.",
            field=field,
            value=specification.training_uri,
            remedy=f"Name data.{part}URI, or give every class more samples.",
        )
    return split.take(kept), split.take(held)


def _resized(split: RawSplit, size: int, *, field: str, name: str | None) -> RawSplit:
    """All samples at ``size`` x ``size``, bilinear; uint8 stays uint8."""
    if split.images.shape[2:] == (size, size):
        return split
    if split.images.ndim != 4 or split.labels.ndim > 2:
        raise UserError(
            "only pictures with one answer each are scaled, not other samples, and no masks.",
            field="spec.data.imageSize",
            value=size,
            remedy="Leave data.imageSize out, and give samples as the network takes them.",
        )
    import torch

    samples, channels = split.images.shape[:2]
    # With the float32 copies that training needs.
    item_bytes = 4 + (1 if split.images.dtype == np.uint8 else 4)
    require_memory(samples * channels * size * size * item_bytes, what="this size", field=field, value=name)
    pieces = []
    step = min(1024, max(1, VALUES_AT_ONCE // (channels * max(size * size, math.prod(split.images.shape[2:])))))
    for start in range(0, samples, step):
        piece = torch.from_numpy(split.images[start : start + step].astype(np.float32))
        scaled = torch.nn.functional.interpolate(
            piece, size=(size, size), mode="bilinear", align_corners=False, antialias=True
        ).numpy()
        integral = split.images.dtype == np.uint8
        pieces.append(np.rint(scaled).clip(0, 255).astype(np.uint8) if integral else scaled.astype(np.float32))
    return RawSplit(images=np.concatenate(pieces), labels=split.labels)


def _preprocessing(split: RawSplit, scale: float) -> Preprocessing:
    count, axes = 0, (0, *range(2, len(split.images.shape)))
    total = squares = np.zeros(split.images.shape[1])
    for raw in slices(split.images):
        piece = raw.astype(np.float64) * scale
        count += piece.size // piece.shape[1]
        total = total + piece.sum(axis=axes)
        squares = squares + (piece * piece).sum(axis=axes)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0))
    deviation = np.where(deviation < _SMALLEST_DEVIATION, 1.0, deviation)
    # Six digits are enough, and independent of each machine's summation order.
    return Preprocessing(
        scale=scale,
        mean=tuple(round(float(value), 6) for value in mean),
        std=tuple(round(float(value), 6) for value in deviation),
    )


def _given(normalization: Normalization, scale: float, *, channels: int, field: str) -> Preprocessing:
    """The preprocessing that the user's weights were trained with."""
    if len(normalization.mean) not in (1, channels):
        raise UserError(
            f"it has {len(normalization.mean)} numbers, but the samples have {channels} "
            f"{'channel' if channels == 1 else 'channels'}.",
            field=f"{field}.normalization.mean",
            value=", ".join(normalization.mean),
            remedy="Give one number for each channel, or one for all, for mean and for standardDeviation.",
        )
    times = channels // len(normalization.mean)
    return Preprocessing(
        scale=scale,
        mean=tuple(float(value) for value in normalization.mean) * times,
        std=tuple(float(value) for value in normalization.standard_deviation) * times,
    )


def _normalised(split: RawSplit, preprocessing: Preprocessing) -> Split:
    shape = (1, -1, *(1 for _ in split.images.shape[2:]))
    mean = np.array(preprocessing.mean, dtype=np.float32).reshape(shape)
    deviation = np.array(preprocessing.std, dtype=np.float32).reshape(shape)
    images: Images = split.images.astype(np.float32)
    images *= np.float32(preprocessing.scale)
    images -= mean
    images /= deviation
    return Split(images=np.ascontiguousarray(images), labels=split.labels, digest=digest_of(split.images, split.labels))


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
