"""Tolerant validation of objects that another version of the product wrote."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def understood(model: type[Model], document: Any) -> Model:
    """``document`` as ``model``; fields that this version does not know are left out, at any depth.

    A specification refuses unknown fields, since a user's typing error must not be a silent default. What the operator
    wrote is no typing error: a newer one may say more than this version reads. Raises pydantic's ValidationError for
    anything else that is wrong.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        unknown = [fault["loc"] for fault in faults if fault["type"] == "extra_forbidden"]
        try:
            known = _without(document, unknown)
        except (KeyError, IndexError, TypeError):  # a place that is not one in the document
            raise error from None
        if not unknown:
            raise
        return model.model_validate(known)


def _without(document: Any, locations: Sequence[tuple[int | str, ...]]) -> Any:
    result = copy.deepcopy(document)
    for location in locations:
        inner = result
        for step in location[:-1]:
            inner = inner[step]
        del inner[location[-1]]
    return result
