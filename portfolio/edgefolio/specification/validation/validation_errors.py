"""Conversion of pydantic's validation errors into one error that names the field as the user wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgefolio.errors import UserError
from edgefolio.specification.validation.base import BYTES_PATTERN, DECIMAL_PATTERN, bytes_of

_REMEDIES = {"missing": "Add the field.", "extra_forbidden": "Remove it, or correct its spelling."}
_PROBLEMS = {
    "missing": "it is missing",
    "extra_forbidden": "there is no such field",
    "model_type": "it must be a mapping of fields",
}
_PATTERNS = {
    DECIMAL_PATTERN: ("it is not a decimal number", "Write it as 0.5 or 88."),
    BYTES_PATTERN: ("it is not an amount of memory", "Write it as 64Mi or 2Gi."),
}


def first_mistake(error: ValidationError, document: Mapping[str, Any], model: type[BaseModel]) -> UserError:
    """The first validation error of ``document`` as ``model``, and the number of further ones."""
    mistakes = error.errors(include_url=False)
    places = [_place(mistake, document) for mistake in mistakes]
    first = mistakes[0]
    # A union reports one error for each of its types.
    problems = [_problem(mistake) for mistake, place in zip(mistakes, places, strict=True) if place == places[0]]
    others = len(set(places)) - 1
    more = f" ({others} more field{'s are' if others > 1 else ' is'} wrong)" if others else ""
    field = ".".join(str(part) for part in places[0])
    if first["type"] == "value_error":
        field = _narrowed(field, problems[0], model)
    pattern = str(first.get("ctx", {}).get("pattern", ""))
    return UserError(
        f"{' or '.join(dict.fromkeys(problems))}{more}.",
        field=field,
        value=None if first["type"] == "missing" else _value_at(document, places[0]),
        remedy=_PATTERNS[pattern][1] if pattern in _PATTERNS else _REMEDIES.get(first["type"], "Correct the value."),
    )


def bytes_option(text: str, *, field: str, least: int = 0) -> int:
    """Parse the option ``field`` as bytes. Raises :class:`UserError` if it is invalid or too small."""
    problem, remedy = _PATTERNS[BYTES_PATTERN]
    if not re.fullmatch(BYTES_PATTERN, text) or bytes_of(text) < least:
        raise UserError(f"{problem}.", field=field, value=text, remedy=remedy)
    return bytes_of(text)


def _problem(mistake: ErrorDetails) -> str:
    pattern = str(mistake.get("ctx", {}).get("pattern", ""))
    if pattern in _PATTERNS:
        return _PATTERNS[pattern][0]
    message = mistake["msg"].removeprefix("Value error, ").rstrip(".")
    return _PROBLEMS.get(mistake["type"], re.sub(r"^(Input|String|Tuple|Dictionary) should", "it should", message))


def _place(mistake: ErrorDetails, document: Any) -> tuple[str | int, ...]:
    """The path in the document; pydantic's also holds names of union members."""
    place: list[str | int] = []
    for position, part in enumerate(mistake["loc"]):
        if isinstance(document, Mapping):
            if part not in document and (position < len(mistake["loc"]) - 1 or mistake["type"] != "missing"):
                continue  # the member of a union that the mapping was taken for
            place.append(part)
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int):
            place.append(part)
            document = document[part] if part < len(document) else None
        else:
            break
    return tuple(place)


def _narrowed(field: str, problem: str, model: type[BaseModel]) -> str:
    """The field that a rule over several fields names first, below ``field``."""
    word = problem.partition(" ")[0]
    schema = model.model_json_schema(by_alias=True)
    known = {name for part in schema.get("$defs", {}).values() for name in part.get("properties", {})}
    return f"{field}.{word}" if word in known and not field.endswith(f".{word}") else field


def _value_at(document: Any, place: tuple[str | int, ...]) -> Any:
    for part in place:
        if isinstance(document, Mapping) and part in document:
            document = document[part]
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            return None
    return document if not isinstance(document, Mapping | list) else None
