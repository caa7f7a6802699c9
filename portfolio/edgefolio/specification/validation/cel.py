"""CEL validation rules and list types of the custom resources, as ``json_schema_extra`` of their models.

The API server evaluates the rules (``x-kubernetes-validations``). Rules that also hold on the command line have a
pydantic validator as well; a few hold in a cluster only, where ``file:`` paths mean nothing.
"""

from __future__ import annotations

from pydantic.config import JsonDict
from pydantic.types import JsonValue

#: Field of a schema node that holds its CEL rules.
VALIDATIONS = "x-kubernetes-validations"


def rules(*pairs: tuple[str, str]) -> JsonDict:
    """``json_schema_extra`` with one CEL rule for each pair of expression and message."""
    listed: list[JsonValue] = [{"rule": expression, "message": message} for expression, message in pairs]
    return {VALIDATIONS: listed}


def list_map(*keys: str) -> JsonDict:
    """``json_schema_extra`` of a list-map: entries are unique by ``keys`` and merged one by one."""
    named: list[JsonValue] = list(keys)
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": named}


#: ``json_schema_extra`` of an object that one writer alone sets, always as a whole. The API server then keeps one entry
#: in managedFields for it instead of one for every field, which was half of a stored ModelEndpoint.
WRITTEN_WHOLE: JsonDict = {"x-kubernetes-map-type": "atomic"}


def without_default(schema: JsonDict) -> None:
    """``json_schema_extra`` of a field whose absence must stay visible in a stored resource.

    The API server stores defaults; an override of objectives that leaves a field out to inherit it would then look like
    one that sets the default.
    """
    schema.pop("default", None)
