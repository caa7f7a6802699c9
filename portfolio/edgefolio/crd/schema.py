"""Converter from pydantic models to the structural schemas of custom resource definitions.

Kubernetes takes a subset of OpenAPI 3.0: no references, one type per node, static defaults. A model that the subset
cannot express is an error, as is a string, list or map without a bound.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

#: Formats that bound their own length.
_BOUNDED_BY_FORMAT = frozenset({"date-time"})
_KEPT = (
    "type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
    "minProperties", "maxProperties", "format", "default",
    "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type", "x-kubernetes-validations",
)  # fmt: skip


class SchemaError(ValueError):
    """A structural schema cannot express the model; the message names the field."""


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of ``model``, described by its docstrings. Raises :class:`SchemaError`."""
    document = model.model_json_schema(by_alias=True)
    definitions = document.pop("$defs", {})
    return _Converter(definitions).converted(document, path=model.__name__)


class _Converter:
    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions

    def converted(self, given: Schema, *, path: str) -> Schema:
        node = self._resolved(given)
        result: Schema = {}
        if "description" in node:
            result["description"] = plain(node["description"])
        if "const" in node:
            node = {**node, "enum": [node["const"]]}
        if "anyOf" in node:
            result.update(_scalar_of_any_type(node, path=path))
        if "oneOf" in node:
            return result | self._constant_or_object(node, path=path)
        result.update({key: node[key] for key in _KEPT if key in node})
        if result.get("default", 0) is None:
            del result["default"]
        if result.get("x-kubernetes-int-or-string"):
            # The extension stands for the type; the pattern applies to strings only, as intended.
            del result["type"]
        if result.get("type") == "integer":
            result["format"] = "int32" if node.get("maximum", 2**63) < 2**31 else "int64"
        if "properties" in node:
            result.update(self._object(node, path=path))
        elif isinstance(node.get("additionalProperties"), dict):
            result["additionalProperties"] = self._map_value(node["additionalProperties"], path=f"{path}{{}}")
        elif isinstance(node.get("patternProperties"), dict):
            (inner,) = node["patternProperties"].values()
            result["additionalProperties"] = self._map_value(inner, path=f"{path}{{}}")
        elif node.get("type") == "object":
            raise SchemaError(f"{path}: the map does not say what its values are")
        if "items" in node:
            result["items"] = self.converted(node["items"], path=f"{path}[]")
        _check_bounds(result, path=path)
        return result

    def _object(self, node: Schema, *, path: str) -> Schema:
        properties: Schema = {}
        for name, given in node["properties"].items():
            field = self.converted(given, path=f"{path}.{name}")
            if field.get("type") == "object" and "default" in field:
                field["default"] = {}
            properties[name] = _in_order(field)
        result: Schema = {"properties": properties}
        if node.get("required"):
            result["required"] = sorted(node["required"])
        return result

    def _constant_or_object(self, node: Schema, *, path: str) -> Schema:
        """A string that must be one constant, or an object: no type, but each bound applies to its own kind."""
        constants = [choice["const"] for choice in node["oneOf"] if "const" in choice]
        objects = [self._resolved(choice) for choice in node["oneOf"] if "const" not in choice]
        if len(constants) != 1 or len(objects) != 1 or "properties" not in objects[0]:
            raise SchemaError(f"{path}: a structural schema knows a choice of one constant and one object only")
        described = [text for text in (node.get("description"), objects[0].get("description")) if text]
        return {
            "description": "\n".join(plain(text) for text in described),
            "x-kubernetes-preserve-unknown-fields": True,
            **({"default": node["default"]} if "default" in node else {}),
            "pattern": f"^{constants[0]}$",
            "maxLength": len(constants[0]),
            "maxItems": 0,
            **self._object(objects[0], path=path),
        }

    def _map_value(self, given: Schema, *, path: str) -> Schema:
        value = self.converted(given, path=path)
        value.pop("description", None)
        return value

    def _resolved(self, node: Schema) -> Schema:
        """``node`` with its reference followed and its alternative ``null`` dropped; its own keys win."""
        own = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
        if "$ref" in node:
            return _merged(self._resolved(self._definitions[node["$ref"].rpartition("/")[2]]), own)
        if "anyOf" in node:
            choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
            if len(choices) == 1:
                return _merged(self._resolved(choices[0]), own)
            return {**own, "anyOf": choices}
        return node


def _merged(of_type: Schema, own: Schema) -> Schema:
    """A field's schema over its type's; the description is both."""
    described = [part["description"] for part in (own, of_type) if "description" in part]
    return {**of_type, **own, **({"description": "\n\n".join(described)} if described else {})}


def _scalar_of_any_type(node: Schema, *, path: str) -> Schema:
    """A value that may be a string, an integer, a boolean or a list: Kubernetes has no type for it, bounds hold."""
    types = {choice.get("type") for choice in node["anyOf"]}
    if not types <= {"string", "integer", "boolean", "array", "null"}:
        raise SchemaError(f"{path}: a structural schema knows no choice between {sorted(map(str, types))}")
    items = max((choice["maxItems"] for choice in node["anyOf"] if choice.get("type") == "array"), default=0)
    return {"x-kubernetes-preserve-unknown-fields": True, "maxLength": 253, "maxItems": items, "maxProperties": 0}


def _check_bounds(node: Schema, *, path: str) -> None:
    kind = node.get("type")
    named = "enum" in node or node.get("format") in _BOUNDED_BY_FORMAT
    if kind == "string" and "maxLength" not in node and not named:
        raise SchemaError(f"{path}: the string has no maxLength")
    if kind == "array" and "maxItems" not in node:
        raise SchemaError(f"{path}: the list has no maxItems")
    if "additionalProperties" in node and "maxProperties" not in node:
        raise SchemaError(f"{path}: the map has no maxProperties")
    if kind == "number":
        raise SchemaError(f"{path}: the resource holds no floats")
    if kind is None and not any(key.startswith("x-kubernetes-") for key in node):
        raise SchemaError(f"{path}: the node has no type")


def _in_order(field: Schema) -> Schema:
    """Sort keys for readers: description and type, then bounds, then children."""
    first = ("description", "type", "format", "default", "enum")
    last = ("required", "properties", "additionalProperties", "items", "x-kubernetes-validations")
    middle = [key for key in field if key not in first and key not in last]
    return {key: field[key] for key in (*first, *middle, *last) if key in field}


def plain(text: str) -> str:
    """A docstring as plain text: one line per paragraph, no code markup."""
    paragraphs = re.split(r"\n\s*\n", text.replace("``", "").strip())
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())
