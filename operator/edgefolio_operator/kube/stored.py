"""Reader of stored objects into models; logs fields that this version does not understand once."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from edgefolio.specification.tolerant import Model, salvaged

logger = logging.getLogger(__name__)


def read_parts(model: type[Model], document: Any) -> tuple[Model | None, tuple[str, ...]]:
    """:func:`read_stored`, and the names of the parts that were left out."""
    if not document:
        return None, ()
    found, dropped = salvaged(model, document)
    places = tuple(".".join("*" if isinstance(step, int) else step for step in location) for location in dropped)
    for place in places:
        _log_once(model.__name__, place)
    return found, places


def read_stored(model: type[Model], document: Any) -> Model | None:
    """``document`` as ``model`` without what does not validate, as a newer version writes it; ``None`` if absent."""
    return read_parts(model, document)[0]


@lru_cache(maxsize=1024)
def _log_once(model: str, location: str) -> None:
    logger.warning("a stored %s is read without %s: another version wrote it", model, location or "anything")
