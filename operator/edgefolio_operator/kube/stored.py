"""Reader of stored objects into models; logs fields that this version does not understand once."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from edgefolio.specification.conditions import truncated
from edgefolio.specification.resource import ModelPortfolio
from edgefolio.specification.validation.tolerant import Model, salvaged, understood
from edgefolio_operator import reasons
from edgefolio_operator.kube.objects import Object

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


def read_portfolio(document: Object) -> tuple[ModelPortfolio, tuple[str, str] | None]:
    """A stored portfolio, and reason and message of what is wrong with its ``spec.job``, with which no Job is made.

    Rules for Jobs became stricter; what serves must not suffer from that. Raises pydantic's ValidationError for
    anything else that is wrong.
    """
    try:
        return understood(ModelPortfolio, {**document, "status": None}), None
    except ValidationError as error:
        faults = error.errors(include_url=False)
        if any(fault["loc"][:2] != ("spec", "job") for fault in faults):
            raise
        spec = {key: value for key, value in document["spec"].items() if key != "job"}
        return understood(ModelPortfolio, {**document, "spec": spec, "status": None}), invalid_spec(error)


def invalid_spec(error: ValidationError) -> tuple[str, str]:
    """Reason and message of a portfolio that cannot be read."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "spec"
    return reasons.INVALID_SPEC, truncated(f"{field}: {first['msg'].removeprefix('Value error, ')}")


@lru_cache(maxsize=1024)
def _log_once(model: str, location: str) -> None:
    logger.warning("a stored %s is read without %s: another version wrote it", model, location or "anything")
