"""Digests of a pruning run: the fields that a revision is made from, and two digests of them.

Neither covers how a revision is served or where it is published.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edgefolio.specification.resource import PortfolioSpecification
from edgefolio.uris import redacted_document

_MADE_FROM = {"source", "data", "methods", "selection", "profiling", "seed"}


def making_key(spec: PortfolioSpecification, *, request: str = "") -> str:
    """The operator's key of a pruning run, 16 hexadecimal digits; ``request`` is the user's request to remake it.

    Fields at their default are left out, so that a field that a later version adds does not make every portfolio
    anew. The price: within one API version no default may change.
    """
    document = _made_from(spec).model_dump(mode="json", by_alias=True, include=_MADE_FROM, exclude_defaults=True)
    return _sha256([document, request], ensure_ascii=False)[:16]


def making_specification(spec: PortfolioSpecification) -> dict[str, Any]:
    """The pruning run as a manifest records it, defaults included, so that any version can repeat it.

    Credentials, which URIs of objects from before their check may hold, are left out.
    """
    document = _made_from(spec).model_dump(mode="json", by_alias=True, include=_MADE_FROM, exclude_none=True)
    found: dict[str, Any] = redacted_document(document)
    return found


def specification_sha256(document: dict[str, Any]) -> str:
    """The digest that a manifest records of its :func:`making_specification`."""
    return _sha256(document, ensure_ascii=True)


def _made_from(spec: PortfolioSpecification) -> PortfolioSpecification:
    """``spec`` without the nodes on which a published revision is measured once more: they change nothing of it."""
    return spec.model_copy(update={"profiling": spec.profiling.model_copy(update={"node_selectors": ()})})


def _sha256(document: Any, *, ensure_ascii: bool) -> str:
    # The two digests escape differently, and both are stored: neither can change.
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=ensure_ascii).encode()).hexdigest()
