"""``data.task`` and ``data.metric``: what portfolios without them are, and each wrong form as one error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgefolio.contract.making_key import making_key, making_specification
from edgefolio.errors import UserError
from edgefolio.specification import ModelPortfolio
from edgefolio.specification.loading import parse_portfolio


def document(data: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelPortfolio",
        "metadata": {"name": "own"},
        "spec": {
            "source": {
                "architecture": {"library": "factory", "name": "nets:build"},
                "weightsURI": "./weights.safetensors",
            },
            "data": {"trainingURI": "./data.npz", **(data or {})},
            "methods": {"oneShot": {}},
            "repository": {"uri": "./portfolios"},
            "serving": {"modelName": "own"},
            **spec,
        },
    }


def test_portfolios_without_them_keep_their_key_and_their_record() -> None:
    plain = ModelPortfolio.model_validate(document())
    written = making_specification(plain.spec)["data"]
    assert not {"task", "metric"} & set(written)
    # As the release before computed it.
    assert making_key(plain.spec) == KEY_OF_BEFORE
    asked = ModelPortfolio.model_validate(document({"task": "Classification"}))
    assert making_key(asked.spec) == KEY_OF_BEFORE
    other = ModelPortfolio.model_validate(document({"task": "Regression"}))
    assert making_key(other.spec) != KEY_OF_BEFORE
    assert making_specification(other.spec)["data"]["task"] == "Regression"


KEY_OF_BEFORE = "ae850373cb42a3b8"


@pytest.mark.parametrize(
    "data",
    [
        {"metric": {"name": "TopK", "k": 3}},
        {"metric": {"name": "TopK"}},
        {"metric": {"name": "BalancedAccuracy"}},
        {"metric": {"name": "Agreement"}},
        {"task": "MultiLabel"},
        {"task": "Regression", "metric": {"name": "RMSE"}},
        {"task": "Segmentation", "metric": {"name": "Top1"}},
        {"task": "Custom", "metric": {"name": "Agreement"}},
        {"task": "Custom", "metric": {"factory": "metrics:score", "direction": "Lower"}},
        {"task": "Classification", "metric": {"factory": "metrics:score", "direction": "Higher"}},
    ],
)
def test_what_can_be_asked_for(data: dict[str, Any]) -> None:
    portfolio = ModelPortfolio.model_validate(document(data))
    again = ModelPortfolio.model_validate(
        document(making_specification(portfolio.spec)["data"] | {"trainingURI": "./data.npz"})
    )
    assert again.spec.data == portfolio.spec.data


@pytest.mark.parametrize(
    ("data", "spec", "field", "words"),
    [
        ({"task": "Detection"}, {}, "spec.data.task", "Classification"),
        ({"task": "Custom"}, {}, "spec.data", "data.task Custom needs data.metric"),
        ({"task": "Regression", "metric": {"name": "F1"}}, {}, "spec.data", "does not measure this data.task"),
        ({"metric": {"name": "MAE"}}, {}, "spec.data", "does not measure this data.task"),
        ({"metric": {"name": "Accuracy"}}, {}, "spec.data.metric.name", "Top1"),
        ({"metric": {}}, {}, "spec.data.metric", "one of name and factory"),
        ({"metric": "F1"}, {}, "spec.data.metric", "mapping of fields"),
        (
            {"metric": {"name": "F1", "factory": "a:b", "direction": "Higher"}},
            {},
            "spec.data.metric",
            "one of name and factory",
        ),
        ({"metric": {"factory": "a:b"}}, {}, "spec.data.metric", "metric.direction belongs to metric.factory"),
        ({"metric": {"name": "F1", "direction": "Higher"}}, {}, "spec.data.metric", "direction"),
        ({"metric": {"factory": "a:b", "direction": "Up"}}, {}, "spec.data.metric.direction", "Higher"),
        ({"metric": {"name": "F1", "k": 3}}, {}, "spec.data.metric", "metric.k belongs to TopK"),
        ({"metric": {"name": "TopK", "k": 1}}, {}, "spec.data.metric.k", "greater than or equal to 2"),
        ({"metric": {"name": "F1", "average": "macro"}}, {}, "spec.data.metric.average", "there is no such field"),
        (
            {"task": "Regression"},
            {"methods": {"sparseTraining": {}}},
            "spec",
            "methods.sparseTraining trains classifiers only",
        ),
        (
            {"task": "MultiLabel"},
            {"selection": {"minClassRecallPercent": "50"}},
            "spec",
            "selection.minClassRecallPercent is of classes",
        ),
    ],
)
def test_each_wrong_form_is_one_error(data: dict[str, Any], spec: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_portfolio(json.dumps(document(data, **spec)))
    assert caught.value.field.startswith(field)
    assert words in caught.value.one_line()
    assert caught.value.remedy
