"""Tolerant validation of objects that another version of the product wrote."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[int | str, ...]

#: Each round drops invalid parts one level further out.
_MOST_ROUNDS = 12


def understood(model: type[Model], document: Any) -> Model:
    """``document`` as ``model``; fields that this version does not know are left out, at any depth.

    A specification refuses unknown fields, since a user's typing error must not be a silent default. What the operator
    wrote is no typing error: a newer one may set unknown fields. Raises pydantic's ValidationError for
    anything else that is wrong.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        try:
            unknown = [_path(document, fault) for fault in _faults(error) if fault["type"] == "extra_forbidden"]
            known = _without(document, unknown)
        except (KeyError, IndexError, TypeError):  # a place that is not one in the document
            raise error from None
        if not unknown:
            raise
        return model.model_validate(known)


def salvaged(model: type[Model], document: Any) -> tuple[Model | None, tuple[Location, ...]]:
    """``document`` as ``model`` without its invalid parts, and the paths of those.

    Of each fault the smallest part is dropped that the model can do without: a field with a default, or an item of a
    list. ``None`` if nothing that validates is left.
    """
    dropped: list[Location] = []
    for _ in range(_MOST_ROUNDS):
        try:
            return model.model_validate(document), tuple(dropped)
        except ValidationError as error:
            parts = {_culprit(document, fault) for fault in _faults(error)}
        if () in parts:
            break
        document = _without(document, [part for part in parts if not any(part[:n] in parts for n in range(len(part)))])
        dropped += sorted(parts, key=str)
    return None, ((),)


def _faults(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def _path(document: Any, fault: ErrorDetails) -> Location:
    """The path of an unknown field in ``document``; pydantic's also holds names of union members."""
    path: list[int | str] = []
    for step in fault["loc"]:
        if isinstance(document, dict) and step not in document:
            continue
        path.append(step)
        document = document[step]
    return tuple(path)


def _culprit(document: Any, fault: ErrorDetails) -> Location:
    """The part of ``document`` that a fault is about; of a field that is missing, the part that lacks it."""
    location: list[int | str] = []
    inner: Any = document
    for step in fault["loc"]:
        try:
            inner = inner[step]
        except (KeyError, IndexError, TypeError):  # the name of a member of a union, or a field that is missing
            break
        location.append(step)
    return tuple(location)


def _without(document: Any, locations: Iterable[Sequence[int | str]]) -> Any:
    # Later items of a list first, so that earlier indices stay valid.
    for location in sorted(
        locations, key=lambda steps: [(isinstance(step, str), step) for step in steps], reverse=True
    ):
        document = _removed(document, location)
    return document


def _removed(inner: Any, location: Sequence[int | str]) -> Any:
    # Copied along the path only: a deep copy gives up on a document that nests deeper than it recurses.
    copied = copy.copy(inner)
    if len(location) == 1:
        del copied[location[0]]
    else:
        copied[location[0]] = _removed(inner[location[0]], location[1:])
    return copied
