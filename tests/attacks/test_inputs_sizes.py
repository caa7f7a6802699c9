"""Objects at their bounds: 16 variants, 20 revisions, names of 63 characters, messages of four bytes a letter."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edgefolio.crd.definitions import model_endpoint, model_portfolio
from edgefolio_operator.revisions.profiling import KEPT_REVISIONS

#: etcd refuses requests of 1.5 MiB; the API server stores beside an object who wrote which field.
LARGEST_OBJECT = 1 << 20
#: Of a letter: four in UTF-8, six where JSON escapes it.
LETTER_BYTES = 6
NUMBER_BYTES = 24


def largest_bytes(schema: dict[str, Any], place: str) -> int:
    """The most bytes of JSON that ``schema`` lets through. Fails where there is no bound."""
    kind = schema.get("type")
    if "enum" in schema:
        return max(len(str(value)) for value in schema["enum"]) + 2
    if kind is None and "properties" in schema:
        # A word or an object: whichever is larger.
        as_object = largest_bytes({**schema, "type": "object"}, place)
        return max(as_object, largest_bytes({"type": "string", "maxLength": schema["maxLength"]}, place))
    # Without a type: options of an architecture, which are no lists and no mappings.
    if kind in ("string", None):
        assert "maxLength" in schema, f"{place} has any length: {schema}"
        return schema["maxLength"] * (1 if of_plain_letters(schema) else LETTER_BYTES) + 2
    if kind in ("integer", "number", "boolean"):
        return NUMBER_BYTES
    if kind == "array":
        assert "maxItems" in schema, f"{place} has any number of items"
        each = largest_bytes(schema["items"], f"{place}[]")
        if place == "status.revisions":
            # The operator keeps the profiles of two revisions (tests/operator/test_profiling.py).
            profiles = largest_bytes(schema["items"]["properties"]["profiles"], f"{place}[].profiles")
            return 2 + schema["maxItems"] * (1 + each - profiles) + KEPT_REVISIONS * profiles
        return 2 + schema["maxItems"] * (1 + each)
    assert kind == "object", (place, schema)
    size = 2
    for name, inner in schema.get("properties", {}).items():
        size += len(name) + 4 + largest_bytes(inner, f"{place}.{name}")
    if "additionalProperties" in schema:
        assert "maxProperties" in schema, f"{place} has any number of keys"
        # Keys are labels, names of resources or options: at most a prefix, a slash and 63 characters.
        size += schema["maxProperties"] * (330 + largest_bytes(schema["additionalProperties"], f"{place}.*"))
    return size


def of_plain_letters(schema: dict[str, Any]) -> bool:
    """Whether a pattern names each letter that may stand there, all of them ASCII."""
    pattern = schema.get("pattern", "")
    bare = re.sub(r"\\.|\[[^\]]*\]", "", pattern)
    return pattern[:1] == "^" and pattern[-1:] == "$" and pattern.isascii() and "." not in bare and "[^" not in pattern


def schemas() -> dict[str, dict[str, Any]]:
    return {
        document["spec"]["names"]["kind"]: version["schema"]["openAPIV3Schema"]["properties"]
        for document in (model_portfolio(), model_endpoint())
        for version in document["spec"]["versions"]
    }


@pytest.mark.parametrize("kind", ["ModelPortfolio", "ModelEndpoint"])
@pytest.mark.parametrize("part", ["spec", "status"])
def test_an_object_at_its_bounds_can_be_stored(kind: str, part: str) -> None:
    # A Job reads its specification from a ConfigMap, which holds 1 MiB as well.
    assert largest_bytes(schemas()[kind][part], part) < LARGEST_OBJECT
