"""Reader of stored objects into models; logs fields that this version does not understand once."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from edgefolio.specification.tolerant import Model, salvaged

logger = logging.getLogger(__name__)


def read_stored(model: type[Model], document: Any) -> Model | None:
    """``document`` as ``model`` without what does not validate, as a newer version writes it; ``None`` if absent."""
    if not document:
        return None
    found, dropped = salvaged(model, document)
    for location in dropped:
        _log_once(model.__name__, ".".join("*" if isinstance(step, int) else step for step in location))
    return found


@lru_cache(maxsize=1024)
def _log_once(model: str, location: str) -> None:
    logger.warning("a stored %s is read without %s: another version wrote it", model, location or "anything")
