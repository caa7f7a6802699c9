"""Loader of ``spec.data`` into a :class:`DataBundle`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefolio.errors import UserError
from edgefolio.manifest import Preprocessing
from edgefolio.shown_text import shortened
from edgefolio.specification import DataSpecification
from edgefolio.uris import redacted
from edgefolio_pruner.data.arrays.converting import Request
from edgefolio_pruner.data.bundle import INPUT_NAME, DataBundle
from edgefolio_pruner.data.class_order import ClassOrder, in_order, names_of_outputs
from edgefolio_pruner.data.model_input import ModelInput
from edgefolio_pruner.data.normalising import (
    given_preprocessing,
    listed,
    normalised,
    own_preprocessing,
    preprocessing_of_model,
    resized,
)
from edgefolio_pruner.data.pictures import PictureSize
from edgefolio_pruner.data.raw import (
    TEST,
    TRAIN,
    VALIDATION,
    RawData,
    RawSplit,
    check_class_names,
    check_split,
)
from edgefolio_pruner.data.reading import read_raw
from edgefolio_pruner.data.shared_samples import shared_samples
from edgefolio_pruner.data.splitting import hold_out
from edgefolio_pruner.data.stored import slices
from edgefolio_pruner.progress import Progress, no_progress


def load_data(
    specification: DataSpecification,
    *,
    seed: int,
    field: str = "spec.data",
    model_class_names: tuple[str, ...] = (),
    model_input: ModelInput | None = None,
    fits: Callable[[tuple[int, ...]], bool] | None = None,
    scratch: Path | None = None,
    progress: Progress = no_progress,
) -> DataBundle:
    """The data that ``specification`` names, in three disjoint parts.

    Given splits are used; missing ones are held out of the training data, stratified by class and drawn by
    ``seed``. Values become ``(raw * scale - mean) / std``, with mean and std per channel as ``specification`` says, as
    ``model_input`` says (given weights were trained so), or over the training part. The classes are in the order of
    ``specification``, else of ``model_class_names`` if these are all there. Large data are kept in a file in
    ``scratch``. ``fits`` tells whether the network takes samples of a shape, where their axes may be meant in several
    ways. Raises :class:`UserError` for the field that is at fault.
    """
    task = specification.task
    order = ClassOrder(
        names=specification.class_names or (), by=specification.class_order, model_names=model_class_names
    )
    fields = {TRAIN: f"{field}.trainingURI", VALIDATION: f"{field}.validationURI", TEST: f"{field}.testURI"}
    progress(stage="data", fraction=0.0, message=f"reading {redacted(specification.training_uri)}")
    size = _picture_size(specification.image_size, model_input)
    request = Request(
        uri=specification.training_uri,
        needed=TRAIN,
        field=fields[TRAIN],
        task=task,
        needs_labels=specification.metric is None or specification.metric.name != "Agreement",
        fits=fits,
        class_names=order.names,
        image_size=size,
        model_size=None if model_input is None else model_input.size,
        scratch=scratch,
        inputs=specification.inputs or (),
    )
    _require_fed_as_they_are(specification, field=field)
    data = _read_in_order(request, order=order, order_field=field)
    # Other parts as the training part was read in the end.
    request = replace(request, image_size=_size_that_was_taken(data, size))
    notes = list(data.notes)
    parts = dict(data.parts)
    names = dict.fromkeys(parts, specification.training_uri)
    for part, uri in ((VALIDATION, specification.validation_uri), (TEST, specification.test_uri)):
        if uri is None:
            continue
        progress(stage="data", fraction=0.3, message=f"reading {redacted(uri)}")
        other = _read_in_order(
            replace(request, uri=uri, needed=part, field=fields[part]), order=order, order_field=field
        )
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
            part: resized(split, specification.image_size, field=fields[part], name=names.get(part), scratch=scratch)
            for part, split in parts.items()
        }
    shape = parts[TRAIN].images.shape[1:]
    for part, split in parts.items():
        own = [_shown(given.shape[1:]) for given in split.inputs]
        wanted = [_shown(given.shape[1:]) for given in parts[TRAIN].inputs]
        if own != wanted:
            raise UserError(
                f"its samples have the shape {', '.join(own)}, those for training {', '.join(wanted)}.",
                field=fields[part],
                value=names.get(part),
                remedy="Give all parts samples of one shape, or set data.imageSize.",
            )
    _require_different(parts[TRAIN], field=fields[TRAIN], name=specification.training_uri)
    own_is_used = (
        not specification.inputs
        and specification.normalization is None
        and _is_of_use(model_input, channels=shape[0], scale=data.scale)
    )
    if specification.inputs is not None:
        preprocessing = Preprocessing()
    elif specification.normalization is not None:
        preprocessing = given_preprocessing(specification.normalization, data.scale, channels=shape[0], field=field)
    elif own_is_used:
        assert model_input is not None
        preprocessing = preprocessing_of_model(model_input, data.scale)
        notes.append(
            f"mean and deviation are those of {model_input.origin}: {listed(preprocessing.mean)} and "
            f"{listed(preprocessing.std)}; data.normalization sets others"
        )
    else:
        preprocessing = own_preprocessing(parts[TRAIN], data.scale)
    preprocessing = preprocessing.model_copy(update={"pictures": data.pictures})
    return DataBundle(
        name=redacted(specification.training_uri),
        train=normalised(parts[TRAIN], preprocessing),
        validation=normalised(parts[VALIDATION], preprocessing),
        test=normalised(parts[TEST], preprocessing),
        class_names=data.class_names,
        preprocessing=preprocessing,
        test_is_held_out=test_is_held_out,
        normalization_of_model=own_is_used,
        notes=tuple(notes),
        task=task,
        has_labels=data.has_labels,
        input_names=specification.inputs or (INPUT_NAME,),
    )


def _require_fed_as_they_are(specification: DataSpecification, *, field: str) -> None:
    """Raise :class:`UserError` if something is to be done to the samples of a network of several inputs."""
    for name, given in (("imageSize", specification.image_size), ("normalization", specification.normalization)):
        if specification.inputs is not None and given is not None:
            raise UserError(
                "several inputs are fed as they are in the file.",
                field=f"{field}.{name}",
                value=given if isinstance(given, int) else "as given",
                remedy=f"Leave data.{name} out, and store the arrays as the network takes them.",
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


def _require_different(split: RawSplit, *, field: str, name: str) -> None:
    """Raise :class:`UserError` for ``field`` if all training samples are equal."""
    equal = len(split.images) > 1
    for given in split.inputs:
        first = given[:1]
        equal = equal and all(bool((piece == first).all()) for piece in slices(given))
    if equal:
        raise UserError(
            f"all {len(split.images)} training samples are equal: nothing tells their classes apart.",
            field=field,
            value=name,
            remedy="Name other data, or check how these were written.",
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


def _is_of_use(model_input: ModelInput | None, *, channels: int, scale: float) -> bool:
    """Whether the model brings a mean for these samples. Floating ones may be normalised already."""
    return (
        model_input is not None
        and model_input.mean is not None
        and len(model_input.mean) == channels
        and scale in (1 / 255, 1 / 65535)
    )


def _picture_size(image_size: int | None, model_input: ModelInput | None) -> PictureSize | None:
    """As the user asks for it; where the model wants the same size, in the model's own way."""
    if image_size is None:
        return None
    own = None if model_input is None else model_input.size
    return own if own is not None and own.crop == image_size else PictureSize.of(image_size)


def _size_that_was_taken(data: RawData, asked: PictureSize | None) -> PictureSize | None:
    taken = data.pictures
    if taken is None or taken.centre_crop is None or taken.resized_shorter_side is None or taken.interpolation is None:
        return asked
    return PictureSize(crop=taken.centre_crop, shorter=taken.resized_shorter_side, interpolation=taken.interpolation)


def _read_in_order(request: Request, *, order: ClassOrder, order_field: str) -> RawData:
    data = read_raw(request)
    classifies = request.task == "Classification" and data.has_labels
    for split in data.parts.values():
        check_split(split, classes=len(data.class_names) if classifies else 0, field=request.field, name=request.uri)
    if classifies:
        return in_order(data, order, field=order_field, uri=request.uri)
    return replace(data, class_names=names_of_outputs(data, order, field=order_field, uri=request.uri))


def _only_part(data: RawData, part: str) -> RawSplit:
    # A file for one purpose holds plain x and y, or the part under its own name.
    return data.parts[part] if part in data.parts else data.parts[TRAIN]


def _renumbered(split: RawSplit, own: tuple[str, ...], wanted: tuple[str, ...]) -> RawSplit:
    if own == wanted[: len(own)]:
        return split
    table = np.array([wanted.index(name) for name in own], dtype=np.int64)
    return replace(split, labels=table[split.labels])


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


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
