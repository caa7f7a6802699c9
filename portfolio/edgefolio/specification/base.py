"""The base of every specification model, and the scalar types that the resource uses."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

_WORDS_IN_CAPITALS = {"Uri": "URI", "P95": "P95"}


def resource_name(name: str) -> str:
    """``training_uri`` -> ``trainingURI``: Kubernetes writes acronyms in capitals."""
    camel = to_camel(name)
    for word, capitals in _WORDS_IN_CAPITALS.items():
        camel = camel.replace(word, capitals)
    return camel


class Specification(BaseModel):
    """Frozen, camelCase outside, unknown fields refused (a typing error must not be a silent default)."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=resource_name, populate_by_name=True)


def _decimal_text(value: object) -> object:
    # YAML reads 88.0 as a float; the resource has no floats, but the command line need not be a pedant about quotes.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _check_decimal(value: str) -> str:
    if not Decimal(value).is_finite():
        raise ValueError("must be a finite decimal number")
    return value


_DECIMAL = r"^-?[0-9]{1,9}(\.[0-9]{1,9})?$"
_BYTES = r"^[0-9]{1,12}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$"

#: A decimal number as a string, "88.0": the resource holds no floats.
DecimalString = Annotated[
    str,
    BeforeValidator(_decimal_text),
    Field(pattern=_DECIMAL, max_length=20),
    AfterValidator(_check_decimal),
    # Said here because pydantic leaves the pattern of a type with validators around it out of the schema.
    WithJsonSchema({"type": "string", "pattern": _DECIMAL, "maxLength": 20}),
]

#: A quantity of bytes as Kubernetes writes it: 64Mi, 2Gi, 500M, 1048576.
ByteQuantity = Annotated[
    str,
    BeforeValidator(_decimal_text),
    Field(pattern=_BYTES, max_length=20),
    WithJsonSchema({"type": "string", "pattern": _BYTES, "maxLength": 20, "x-kubernetes-int-or-string": True}),
]

_BYTE_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def bytes_of(quantity: str) -> int:
    """Number of bytes in a :data:`ByteQuantity`: ``bytes_of("64Mi") == 67108864``."""
    digits = quantity.rstrip("KMGTik")
    return int(Decimal(digits) * _BYTE_UNITS[quantity[len(digits) :]])
