"""Keys and recorded digests of pruning runs are those of the version before: nothing is made anew by an upgrade."""

from __future__ import annotations

from typing import Any

import pytest

from edgefolio.contract.making_key import making_key, making_specification, specification_sha256
from edgefolio.specification.resource import PortfolioSpecification

TRAINED: dict[str, Any] = {
    "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
    "data": {"trainingURI": "builtin:digits"},
    "methods": {"sparseTraining": {}},
    "repository": {"uri": "s3://bucket/portfolios"},
    "serving": {"modelName": "digits"},
}
GIVEN: dict[str, Any] = {
    "source": {
        "architecture": {"library": "edgefolio", "name": "cnn"},
        "weightsURI": "pvc://weights/cnn.safetensors",
    },
    "data": {"trainingURI": "pvc://data/train.npz"},
    "methods": {"sparseTraining": {}, "oneShot": {"macsPercent": [50, 25]}},
    "repository": {"uri": "pvc://models/portfolios"},
    "serving": {"modelName": "digits", "threads": 2},
    "job": {"parallelism": 2, "workDirectory": {"uri": "s3://bucket/work"}},
}
BEYOND_ASCII = {**TRAINED, "data": {"trainingURI": "s3://bücket/träin.npz"}, "seed": 7}


@pytest.mark.parametrize(
    ("spec", "key", "of_march", "recorded"),
    [
        pytest.param(
            TRAINED,
            "5c77a1fbabc9c2df",
            "ea0a35196b9c8bde",
            "4d0b1553bbbed16cae0222adc8f562031f5724e422140cac91cc792186657b89",
            id="trained",
        ),
        pytest.param(
            GIVEN,
            "9db272755b18da85",
            "6ca3595fd438b462",
            "9164ae66af5ee0255a980a21d1db1e06c2474e72d0c85d620211669ffb91d2f2",
            id="given",
        ),
        pytest.param(
            BEYOND_ASCII,
            "26e8192b193ef2d8",
            "f692a428507cce9b",
            "c8e69a77c51c8e50a5a220a06798059d5c453a461ea25d3973614f0b7c3d463d",
            id="letters beyond ASCII",
        ),
    ],
)
def test_digests_of_the_version_before(spec: dict[str, Any], key: str, of_march: str, recorded: str) -> None:
    parsed = PortfolioSpecification.model_validate(spec)
    assert (making_key(parsed), making_key(parsed, request="märz")) == (key, of_march)
    assert specification_sha256(making_specification(parsed)) == recorded
