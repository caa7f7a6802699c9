"""Base class of all specification models, and their scalar types: decimals, byte quantities."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

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

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=resource_name,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


def _decimal_text(value: object) -> object:
    # YAML reads 88.0 as a float; the resource has no floats, but the command line does not insist on quotes.
    # Written out: 1.0e-5 would not be a decimal.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format(Decimal(str(value)), "f")
    return value


def _check_decimal(value: str) -> str:
    if not Decimal(value).is_finite():
        raise ValueError("must be a finite decimal number")
    return value


def _bounded(lowest: int, highest: int | None = None, *, may_be_lowest: bool = True) -> AfterValidator:
    def check(value: str) -> str:
        number = Decimal(value)
        if number < lowest or (number == lowest and not may_be_lowest):
            raise ValueError(f"must be {'at least' if may_be_lowest else 'above'} {lowest}")
        if highest is not None and number > highest:
            raise ValueError(f"must be at most {highest}")
        return value

    return AfterValidator(check)


DECIMAL_PATTERN = r"^-?[0-9]{1,9}(\.[0-9]{1,9})?$"
BYTES_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$"

#: A decimal number as a string, "88.0": the resource holds no floats.
DecimalString = Annotated[
    str,
    BeforeValidator(_decimal_text),
    Field(pattern=DECIMAL_PATTERN, max_length=20),
    AfterValidator(_check_decimal),
    # Set here because pydantic drops the pattern of a type with validators from the schema.
    WithJsonSchema({"type": "string", "pattern": DECIMAL_PATTERN, "maxLength": 20}),
]

NonNegativeDecimal = Annotated[DecimalString, _bounded(0)]
PositiveDecimal = Annotated[DecimalString, _bounded(0, may_be_lowest=False)]
PercentDecimal = Annotated[DecimalString, _bounded(0, 100)]

#: A quantity of bytes as Kubernetes writes it: 64Mi, 2Gi, 500M, 1048576.
ByteQuantity = Annotated[
    str,
    BeforeValidator(_decimal_text),
    Field(pattern=BYTES_PATTERN, max_length=20),
    WithJsonSchema({"type": "string", "pattern": BYTES_PATTERN, "maxLength": 20, "x-kubernetes-int-or-string": True}),
]

_POWERS_OF_TEN = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_POWERS_OF_TWO = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_QUANTITY = re.compile(r"([0-9]{1,24}(?:\.[0-9]{0,24})?)(?:[eE]([+-]?[0-9]{1,2})|([numkMGTPE]|[KMGTPE]i)?)")


def quantity(text: Any) -> Decimal | None:
    """A quantity as Kubernetes writes it (``123456789n``, ``250m``, ``1536Ki``, ``1e3``); ``None`` if it is none."""
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    digits, exponent, suffix = match.groups()
    if suffix in _POWERS_OF_TWO:
        return Decimal(digits) * (1 << _POWERS_OF_TWO[suffix])
    return Decimal(digits).scaleb(int(exponent) if exponent else _POWERS_OF_TEN[suffix or ""])


def bytes_of(text: str) -> int:
    """Whole bytes of a quantity: ``bytes_of("64Mi") == 67108864``. Raises :class:`ValueError` if it is none."""
    amount = quantity(text)
    if amount is None:
        raise ValueError(f"{text!r} is no quantity")
    return int(amount)
