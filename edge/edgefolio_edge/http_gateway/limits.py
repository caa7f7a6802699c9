"""Limits of what one client may ask of the gateway."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LIMITS", "BadRequestError", "Limits"]

MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the gateway. Sizes in bytes, times in seconds.

    ``body_bytes`` bounds a request once it is decompressed, ``json_bytes`` its JSON part, of which a parsed value takes
    many times the memory, and ``json_parts`` the lists, objects and texts in it, which take longest to read: nobody
    else is answered meanwhile. ``at_once`` requests with bodies of
    ``bytes_at_once`` together are under way at most; more are answered 503.
    """

    body_bytes: int = 64 * MEBIBYTE
    json_bytes: int = 8 * MEBIBYTE
    json_depth: int = 16
    json_parts: int = 131_072
    parameters: int = 64
    tensors: int = 64
    dimensions: int = 32
    at_once: int = 64
    bytes_at_once: int = 256 * MEBIBYTE
    body_seconds: float = 20.0
    answer_seconds: float = 120.0
    connections: int = 512
    idle_seconds: float = 75.0
    memory_bytes: int = 4096 * MEBIBYTE


LIMITS = Limits()


class BadRequestError(Exception):
    """A request that is answered with ``status`` and told why."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        self.status = status
        super().__init__(message)
