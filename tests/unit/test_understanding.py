"""What a newer version wrote is read as far as it is known; a mistake stays a mistake."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio.specification.validation.tolerant import understood

ORDER = {
    "portfolioRef": {"name": "digits"},
    "podName": "digits-abc",
    "nodeName": "edge-1",
    "modelName": "digits",
    "repositoryURI": "s3://bucket/portfolios",
    "revision": {"number": 1, "manifestDigest": "0" * 64},
    "objectives": {"latencyP95Milliseconds": 20},
}


def test_unknown_fields_are_left_out_at_any_depth() -> None:
    newer = {
        **ORDER,
        "later": [1, {"a": 2}],
        "revision": {**ORDER["revision"], "signature": "x"},  # type: ignore[dict-item]
        "objectives": {**ORDER["objectives"], "energy": {"most": 1}},  # type: ignore[dict-item]
    }
    assert understood(EndpointSpecification, newer) == EndpointSpecification.model_validate(ORDER)
    assert newer["later"] == [1, {"a": 2}], "the document itself is left as it is"


def test_everything_else_that_is_wrong_is_refused() -> None:
    for wrong in ({"podName": 7}, {"revision": {"number": 0, "manifestDigest": "0" * 64, "later": 1}}, {"epoch": -1}):
        with pytest.raises(ValidationError):
            understood(EndpointSpecification, {**ORDER, **wrong})
    for nothing in (None, [], "text"):
        with pytest.raises(ValidationError):
            understood(EndpointSpecification, nothing)
