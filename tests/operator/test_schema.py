"""The structural schema says what the models say, and refuses what it cannot say."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from edgefolio.crd.schema import SchemaError, structural_schema
from edgefolio.specification.validation.base import DecimalString, Specification


class Leaf(Specification):
    """One leaf.

    More about ``it``.
    """

    size: Annotated[int, Field(ge=0, le=10)] = 3
    """How large."""


class Tree(Specification):
    """A tree."""

    height: DecimalString
    """How high."""
    leaf: Leaf = Leaf()
    """The leaf."""
    other: Leaf | None = None
    options: Annotated[dict[str, str | int | bool | None], Field(max_length=2)] = {}


def test_references_defaults_and_descriptions() -> None:
    assert structural_schema(Tree) == {
        "description": "A tree.",
        "type": "object",
        "required": ["height"],
        "properties": {
            "height": {
                "description": "How high.",
                "type": "string",
                "maxLength": 20,
                "pattern": r"^-?[0-9]{1,9}(\.[0-9]{1,9})?$",
            },
            "leaf": {
                "description": "The leaf.\nOne leaf.\nMore about it.",
                "type": "object",
                "default": {},
                "properties": {
                    "size": {
                        "description": "How large.",
                        "type": "integer",
                        "format": "int32",
                        "default": 3,
                        "minimum": 0,
                        "maximum": 10,
                    }
                },
            },
            "other": {
                "description": "One leaf.\nMore about it.",
                "type": "object",
                "properties": structural_schema(Leaf)["properties"],
            },
            "options": {
                "type": "object",
                "default": {},
                "maxProperties": 2,
                "additionalProperties": {
                    "x-kubernetes-preserve-unknown-fields": True,
                    "maxLength": 253,
                    "maxItems": 0,
                    "maxProperties": 0,
                },
            },
        },
    }


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        pytest.param(str, "the string has no maxLength", id="string"),
        pytest.param(tuple[int, ...], "the list has no maxItems", id="list"),
        pytest.param(dict[str, int], "the map has no maxProperties", id="map"),
        pytest.param(float, "the resource holds no floats", id="float"),
        pytest.param(dict[str, Any], "does not say what its values are", id="anything"),
        pytest.param(Annotated[str, Field(max_length=3)] | Leaf, "no choice between", id="choice"),
    ],
)
def test_what_is_unbounded_is_refused(annotation: Any, said: str) -> None:
    model = type("Model", (Tree,), {"__annotations__": {"field": annotation}, "__module__": __name__})
    with pytest.raises(SchemaError, match=rf"Model\.field.*({said})"):
        structural_schema(model)
