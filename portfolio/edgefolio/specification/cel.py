"""Rules of the custom resource that span fields, written beside the models they guard.

A rule is a CEL expression that the API server evaluates (``x-kubernetes-validations``). Where the same rule holds on
the command line, too, the model carries a validator of its own; a few hold in a cluster only (``file:`` paths mean
nothing there) and stand as rules alone.
"""

from __future__ import annotations

from pydantic.config import JsonDict
from pydantic.types import JsonValue

#: Key under which Kubernetes keeps the rules of a schema node.
VALIDATIONS = "x-kubernetes-validations"


def rules(*pairs: tuple[str, str]) -> JsonDict:
    """``json_schema_extra`` with one CEL rule for each pair of expression and message."""
    listed: list[JsonValue] = [{"rule": expression, "message": message} for expression, message in pairs]
    return {VALIDATIONS: listed}


def list_map(*keys: str) -> JsonDict:
    """``json_schema_extra`` of a list whose entries are told apart by ``keys``: no two alike, merged one by one."""
    named: list[JsonValue] = list(keys)
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": named}


#: ``json_schema_extra`` of a part that one writer alone says, and says whole each time. The API server then keeps one
#: line of who wrote it instead of one for every field, which was half of a stored ModelEndpoint.
WRITTEN_WHOLE: JsonDict = {"x-kubernetes-map-type": "atomic"}


def without_default(schema: JsonDict) -> None:
    """``json_schema_extra`` of a field whose absence must stay visible in a stored resource.

    The API server writes defaults into what it stores; a level of objectives that inherits what it leaves out could
    then no longer be told from one that asks for the default.
    """
    schema.pop("default", None)
