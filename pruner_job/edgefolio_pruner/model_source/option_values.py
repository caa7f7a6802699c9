"""Options of a network: their values in text, and as the code that builds it is called with them."""

from __future__ import annotations

import re

from edgefolio.specification.making import OptionValue

#: A number in text that is no whole one: 0.25, .5, 1e-3.
_DECIMAL = re.compile(r"-?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")


def option_value(text: str) -> OptionValue:
    """What an option on the command line says: an integer, a word such as ``true``, a list in brackets, or text."""
    if text.startswith("[") and text.endswith("]"):
        return tuple(_option_scalar(entry.strip()) for entry in text[1:-1].split(",") if entry.strip())
    return _option_scalar(text)


def _option_scalar(text: str) -> str | int | bool | None:
    words: dict[str, bool | None] = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text


def plain_value(value: OptionValue) -> object:
    """``value`` as a builder is called with it: decimal numbers in text become floats."""
    if isinstance(value, tuple):
        return [plain_value(entry) for entry in value]
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return float(value)
    return value
