"""JSON encoding of the decision's values: camelCase, defaults left out, non-finite numbers as strings."""

from __future__ import annotations

import dataclasses
import math
from enum import Enum
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from edgefolio.decision import types

Value = TypeVar("Value")

_CLASSES = tuple(
    member for member in vars(types).values() if isinstance(member, type) and dataclasses.is_dataclass(member)
)
_FIELDS_BY_JSON_NAME = {to_camel(field.name): field.name for kind in _CLASSES for field in dataclasses.fields(kind)}
#: Fields that earlier versions recorded and no rule reads.
_RETIRED = frozenset({"batch", "instances", "instanceOverheadBytes"})
_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in _CLASSES}


def encoded(value: Any) -> Any:
    """``value`` (a dataclass of the decision, or its parts) as JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            to_camel(field.name): encoded(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.default is dataclasses.MISSING or getattr(value, field.name) != field.default
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [encoded(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value


def decoded(kind: type[Value], document: Any, *, ignore_unknown: bool = False) -> Value:
    """The ``kind`` that :func:`encoded` wrote as ``document``. Raises ValueError that names the field."""
    if not isinstance(document, dict):
        raise ValueError(f"a {kind.__name__} must be an object, not {type(document).__name__}")
    try:
        value: Value = _ADAPTERS[kind].validate_python(_renamed(document, ignore_unknown=ignore_unknown))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(to_camel(part) if isinstance(part, str) else str(part) for part in first["loc"])
        raise ValueError(f"{kind.__name__}.{where}: {first['msg']}") from error
    return value


def _renamed(document: Any, *, ignore_unknown: bool) -> Any:
    if isinstance(document, dict):
        for key in document:
            if key not in _FIELDS_BY_JSON_NAME and key not in _RETIRED and not ignore_unknown:
                raise ValueError(f"field {key!r} is unknown")
        return {
            _FIELDS_BY_JSON_NAME[key]: _renamed(entry, ignore_unknown=ignore_unknown)
            for key, entry in document.items()
            if key in _FIELDS_BY_JSON_NAME
        }
    if isinstance(document, list):
        return [_renamed(entry, ignore_unknown=ignore_unknown) for entry in document]
    return document
