"""Generic mapper between a dataclass of the decision and the pydantic model of a resource's status.

Both sides are declared once: the value in :mod:`edgefolio.decision.types`, for the core; the model in
:mod:`edgefolio.specification`, with what only a stored object needs (bounds, defaults for objects of other versions,
deprecated fields, CRD descriptions). A field has the same name on both sides; the types determine the encoding:
floats as decimal strings, seconds as times, bytes within what JSON can hold, texts and lists cut to their bounds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgefolio.specification.conditions import Time, VariantName, time_seconds, time_text
from edgefolio.specification.endpoint import FactorPercent, MeanDecimal
from edgefolio.specification.portfolio_status import LARGEST_BYTES, Bytes
from edgefolio.specification.validation.base import DecimalString

Value = TypeVar("Value")
Report = TypeVar("Report", bound=BaseModel)
Convert = Callable[[Any], Any]

_LARGEST_DECIMAL = 999_999_999.0


class _Form(NamedTuple):
    """Encoder and decoder of a status field; ``None`` leaves the value unchanged."""

    write: Convert | None
    read: Convert | None


class StatusMapper(Generic[Value, Report]):
    """Writes values of one class into their status model, and reads them again.

    Raises TypeError if a field of the value has no counterpart and is not declared as unreported: a new field cannot be
    forgotten on the way.
    """

    def __init__(
        self,
        value: type[Value],
        report: type[Report],
        *,
        renamed: Mapping[str, str] | None = None,
        unreported: Sequence[str] = (),
        parts: Sequence[StatusMapper[Any, Any]] = (),
    ) -> None:
        """``renamed`` gives names in the model by names in the value; ``parts`` map values inside this one."""
        self.value = value
        self.report = report
        self.parts = tuple(parts)
        self.unreported = tuple(unreported)
        hints, reported = get_type_hints(value), get_type_hints(report, include_extras=True)
        names = [field.name for field in dataclasses.fields(value) if field.name not in unreported]  # type: ignore[arg-type]
        counterparts = {name: (renamed or {}).get(name, name) for name in names}
        if missing := [name for name in names if counterparts[name] not in report.model_fields]:
            raise TypeError(f"{report.__name__} holds no {missing} of {value.__name__}")
        inner = {part.value: part for part in parts}
        forms = {name: _form(hints[name], reported[other], inner) for name, other in counterparts.items()}
        self._written = [(counterparts[name], name, form.write) for name, form in forms.items()]
        self._read = [(name, counterparts[name], form.read) for name, form in forms.items()]

    def written(self, value: Value) -> dict[str, Any]:
        """The fields of the model that hold ``value``. Raises ValueError for NaN."""
        return _converted(value, self._written)

    def read(self, report: Report, **rest: Any) -> Value:
        """The value that ``report`` holds; ``rest`` are the fields that it does not."""
        return self.value(**_converted(report, self._read), **rest)

    def report_of(self, value: Value) -> Report:
        """``value`` as a model of its own."""
        return self.report(**self.written(value))


def decimal_text(value: float) -> str:
    """``value`` as the resource holds numbers: at most six decimals, no exponent. Raises ValueError for NaN."""
    if math.isnan(value):
        raise ValueError("NaN is no measurement")
    bounded = min(max(value, -_LARGEST_DECIMAL), _LARGEST_DECIMAL)
    text = f"{bounded:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _mean_text(value: float) -> str:
    """A mean over zero requests is NaN; the request count says so already."""
    return decimal_text(value) if math.isfinite(value) else "0"


def _percent(factor: float) -> int:
    return max(1, min(1_000_000, round(100 * factor)))


#: By the type in the model.
_FORMS: tuple[tuple[Any, _Form], ...] = (
    (MeanDecimal, _Form(_mean_text, float)),
    (DecimalString, _Form(decimal_text, float)),
    (Time, _Form(time_text, time_seconds)),
    (Bytes, _Form(lambda value: min(max(value, 0), LARGEST_BYTES), None)),
    (FactorPercent, _Form(_percent, lambda percent: percent / 100)),
    (VariantName, _Form(None, None)),
)


def _converted(source: Any, fields: Sequence[tuple[str, str, Convert | None]]) -> dict[str, Any]:
    """By new name: the field of the old name, converted unless it is ``None``."""
    held = vars(source)
    return {
        new: found if (found := held[old]) is None or convert is None else convert(found)
        for new, old, convert in fields
    }


def _form(hint: Any, reported: Any, parts: Mapping[type, StatusMapper[Any, Any]]) -> _Form:
    """The form of a field, by its type in the value (``hint``) and in the model (``reported``)."""
    if reported == DecimalString | None:
        return _Form(lambda value: decimal_text(value) if math.isfinite(value) else None, float)
    hint, reported = _without_none(hint), _without_none(reported)
    for known, form in _FORMS:
        if reported == known:
            return form
    longest = _longest(reported)
    if get_origin(hint) is tuple:
        item = reported.__origin__ if get_origin(reported) is Annotated else reported
        write, read = _form(get_args(hint)[0], get_args(item)[0], parts)
        return _Form(
            lambda values: tuple(map(write, values[-longest:] if longest else values)) if write else values,
            lambda values: tuple(map(read, values)) if read and values else values,
        )
    if hint in parts:
        return _Form(parts[hint].report_of, parts[hint].read)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _Form(lambda value: value.value, hint)
    if hint is float:
        raise TypeError(f"a number cannot be held as {reported}")
    return _Form((lambda text: text[:longest]) if hint is str and longest else None, None)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, UnionType):
        return hint
    (one,) = (argument for argument in get_args(hint) if argument is not NoneType)
    return one


def _longest(reported: Any) -> int | None:
    """The bound on the length of a text or a list."""
    found = [entry for entry in get_args(reported)[1:] if isinstance(entry, FieldInfo)]
    return next((rule.max_length for entry in found for rule in entry.metadata if hasattr(rule, "max_length")), None)
