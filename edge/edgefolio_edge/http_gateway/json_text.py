"""Bounded reading of a stranger's JSON: size, depth and number of parts are known before anything is parsed."""

from __future__ import annotations

import json
import re
from typing import Any

from edgefolio_edge.http_gateway.limits import BadRequestError, Limits

__all__ = ["read_json_object"]

#: A string with its escapes, or a bracket. A string that never ends is the rest of the text.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def read_json_object(raw: bytes, limits: Limits) -> dict[str, Any]:
    """The object in ``raw``. Raises :class:`BadRequestError` for anything else, and beyond ``limits``."""
    if len(raw) > limits.json_bytes:
        raise BadRequestError(
            f"the JSON part has {len(raw)} bytes, at most {limits.json_bytes} are read; send tensors as binary data",
            status=413,
        )
    # Counted before anything is built; those inside texts count too, which no real request minds.
    if raw.count(b"[") + raw.count(b"{") + raw.count(b'"') // 2 > limits.json_parts:
        raise BadRequestError(
            f"the JSON has more than {limits.json_parts} lists, objects and texts; send tensors as flat lists, or as "
            "binary data",
            status=413,
        )
    if depth_of(raw, most=limits.json_depth) > limits.json_depth:
        raise BadRequestError(f"the JSON is nested more than {limits.json_depth} deep")
    try:
        # UTF-8 alone: json.loads guesses UTF-16 and UTF-32 from bytes, in which depth was not counted.
        document = json.loads(raw.decode("utf-8-sig"))
    # A text of digits beyond Python's bound is a ValueError, too.
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadRequestError("the body is not a JSON object")
    return document


def depth_of(raw: bytes, *, most: int) -> int:
    """How deep brackets outside strings are nested; stops counting one beyond ``most``. Linear in the text."""
    depth = deepest = 0
    for match in _TOKENS.finditer(raw):
        token = match[0]
        if token in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
            if deepest > most:
                return deepest
        elif token in (b"]", b"}"):
            depth -= 1
    return deepest
