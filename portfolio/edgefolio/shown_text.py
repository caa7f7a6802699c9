"""Untrusted text for messages, logs and terminals: bounded, on one line, without control characters.

A model, a manifest, a file name or a status may hold escape sequences that rewrite a terminal, line breaks that forge a
line of a log, and texts of any length.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

#: The longest value that a message shows.
LONGEST_VALUE = 300
# str() refuses 4301 digits or more (CVE-2020-10735), and nobody reads a number of 100.
_LONGEST_INTEGER_BITS = 333
_BLANKS = "\n\t\r\u00a0\u2028\u2029"
_SHOWN_BLANKS = str.maketrans({"\n": r"\n", "\t": r"\t", "\r": r"\r"})


def printable(text: str) -> str:
    """``text`` on one line: blanks for its line breaks, and control characters and marks of direction escaped."""
    return text if text.isprintable() else "".join(map(_printable_letter, text))


def shortened(text: str, limit: int) -> str:
    """``text`` printable and cut to ``limit`` characters."""
    shown = printable(text[:limit])
    return shown if len(text) <= limit and len(shown) <= limit else shown[: limit - 1] + "…"


def shown(value: object, *, limit: int = LONGEST_VALUE) -> str:
    """``value`` as a message shows it, whatever its size: text as it is, of a list or mapping the beginning."""
    if isinstance(value, str):
        # A line break at the end of a value is often what is wrong with it.
        return shortened(value[: limit + 1].translate(_SHOWN_BLANKS), limit)
    if isinstance(value, bytes | bytearray | Mapping | list | tuple | AbstractSet):
        return shortened(_BOUNDED.repr(value), limit)
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER_BITS:
        return _long_integer(value)
    return shortened(str(value), limit)


def _printable_letter(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter in _BLANKS else letter.encode("unicode_escape", errors="backslashreplace").decode()


class _BoundedRepr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 10
        self.maxstring = self.maxother = 100

    def repr_int(self, x: int, _level: int) -> str:
        return _long_integer(x) if x.bit_length() > _LONGEST_INTEGER_BITS else repr(x)

    def repr_bytes(self, x: bytes, _level: int) -> str:
        return repr(x[: self.maxstring])

    repr_bytearray = repr_bytes


def _long_integer(value: int) -> str:
    return f"an integer of {value.bit_length()} bits"


_BOUNDED = _BoundedRepr()


def shown_rate(bits_per_second: float | None) -> str:
    """A rate for people."""
    if bits_per_second is None:
        return "no link"
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bits_per_second >= size:
            return f"{bits_per_second / size:.3g} {unit}"
    return f"{bits_per_second:.3g} bit/s"
