"""What a revision is made from: one list of fields, and the two digests over them.

How a revision is served and where it is published has no part in either.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edgefolio.specification.resource import PortfolioSpecification

_MADE_FROM = {"source", "data", "methods", "selection", "profiling", "seed"}


def making_key(spec: PortfolioSpecification, *, request: str = "") -> str:
    """The operator's key of a making, 16 hexadecimal digits; ``request`` is the user's wish to make it once more.

    Fields that hold their default are left out, so that a field that a later version adds does not make every portfolio
    anew. The other side of it: within one API version no default may change.
    """
    document = spec.model_dump(mode="json", by_alias=True, include=_MADE_FROM, exclude_defaults=True)
    return _sha256([document, request], ensure_ascii=False)[:16]


def making_specification(spec: PortfolioSpecification) -> dict[str, Any]:
    """What a manifest records of the making, defaults written out: it can be made again from it by any version."""
    document: dict[str, Any] = spec.model_dump(mode="json", by_alias=True, include=_MADE_FROM, exclude_none=True)
    return document


def specification_sha256(document: dict[str, Any]) -> str:
    """The digest that a manifest records of its :func:`making_specification`."""
    return _sha256(document, ensure_ascii=True)


def _sha256(document: Any, *, ensure_ascii: bool) -> str:
    # The two digests escape differently, and both are stored: neither can change.
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=ensure_ascii).encode()).hexdigest()
