"""Bounded JSON and bounded field types, for documents that strangers may have written.

What :func:`parse_json` lets through can be printed, written again and walked through: no deep nesting, no number of
four hundred digits, no half of a surrogate pair, no duplicate key.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from edgefolio.errors import IntegrityError
from edgefolio.shown_text import printable

MAXIMUM_DEPTH = 32
#: Objects and arrays, and strings, of one document; each costs far more memory than its text.
MAXIMUM_CONTAINERS = 200_000
MAXIMUM_STRINGS = 2_000_000
#: Values of one document, numbers above all: 64 MiB of ``1,`` would take half a gigabyte and a minute to read, and an
#: agent in a pod has half a gigabyte. A manifest of this size holds half as many numbers of a probe.
MAXIMUM_VALUES = 6_000_000
#: The largest whole number that every reader of JSON holds exactly.
LARGEST_COUNT = 2**53
_LONGEST_INTEGER = 20
_LONGEST_TEXT = 64 << 10
#: Control characters but tab and newline, halves of surrogate pairs, and what turns the direction of writing.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNWANTED_IN_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def parse_json(raw: bytes, *, what: str, location: str) -> Any:
    """The JSON document in ``raw``, within the bounds of this module. Raises :class:`IntegrityError`."""
    try:
        # Counted before anything is built; those inside strings count too, which no real document minds.
        containers = raw.count(b"[") + raw.count(b"{")
        strings, values = raw.count(b'"') // 2, raw.count(b",")
        if containers > MAXIMUM_CONTAINERS or strings > MAXIMUM_STRINGS or values > MAXIMUM_VALUES:
            raise ValueError("it has too many parts")
        document = json.loads(
            raw.decode("utf-8"),
            parse_int=_integer,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
        require_bounded(document)
    except UnicodeDecodeError as error:
        raise IntegrityError(f"the {what} is not JSON in UTF-8.", location=location) from error
    except RecursionError as error:
        raise IntegrityError(f"the {what} cannot be read as JSON: it is nested too deep.", location=location) from error
    except ValueError as error:
        raise IntegrityError(
            f"the {what} cannot be read as JSON: {printable(str(error))}.", location=location
        ) from error
    return document


def require_bounded(document: Any) -> Any:
    """Return ``document``, made of JSON's types, if it is within the bounds. Raises ``ValueError``."""
    level: list[Any] = [document]
    for _ in range(MAXIMUM_DEPTH + 1):
        if not level:
            return document
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.keys()
                inner += value.values()
            elif isinstance(value, list | tuple):
                if set(map(type, value)) != {float}:
                    inner += value
                elif not all(map(math.isfinite, value)):  # a probe holds millions of numbers
                    raise ValueError("a number in it is too large")
            else:
                _require_scalar(value)
        level = inner
    raise ValueError(f"it is nested more than {MAXIMUM_DEPTH} deep")


def _require_scalar(value: Any) -> None:
    if isinstance(value, str):
        if len(value) > _LONGEST_TEXT:
            raise ValueError(f"a text in it has {len(value)} characters")
        if _UNWANTED.search(value):
            raise ValueError(f"a text in it has control characters: {printable(value[:40])}")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number in it is too large")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise ValueError("a number in it is too large")
    elif value is not None:
        raise ValueError(f"it holds a {type(value).__name__}")


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"a number in it has {len(text)} digits")
    return int(text)


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object in it has a duplicate key")
    return found


def _one_line(text: str) -> str:
    if _UNWANTED_IN_LINE.search(text):
        raise ValueError("has control characters")
    return text


def _free(text: str) -> str:
    if _UNWANTED.search(text):
        raise ValueError("has control characters")
    return text


def _document(value: dict[str, Any]) -> dict[str, Any]:
    require_bounded(value)
    return value


#: One line of text for people: a name, a version, a URI.
Line = Annotated[str, Field(max_length=1024), AfterValidator(_one_line)]
#: Text for people, in several lines perhaps.
FreeText = Annotated[str, Field(max_length=16_384), AfterValidator(_free)]
#: An object of somebody else's fields.
Document = Annotated[dict[str, Any], AfterValidator(_document)]
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Positive = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
#: From a nanosecond to a day.
Milliseconds = Annotated[float, Field(ge=1e-6, le=1e8)]
Percent = Annotated[float, Field(ge=0, le=100)]
#: Differences, bounds and factors.
Magnitude = Annotated[float, Field(ge=0, le=1e30)]
