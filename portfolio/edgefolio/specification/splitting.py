"""Models of splits: one model over several nodes that compute one answer together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from edgefolio.specification.validation.base import NonNegativeDecimal, Specification
from edgefolio.specification.validation.cel import rules, without_default

_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}
_TUNING_RULE = "fineTuneEpochs does not go with layout Rows, which loses nothing"
_SHARES_RULE = "sharesPercent must be one number for each of the workers, and sum to 100"


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_WAITS = r"^(Auto|[0-9]|1[0-6])$"
#: Auto, or a number of exchanges.
ExchangeCount = Annotated[
    str,
    BeforeValidator(_number_as_text),
    Field(pattern=_WAITS, max_length=4),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _WAITS,
            "maxLength": 4,
            "minimum": 0,
            "maximum": 16,
            "x-kubernetes-int-or-string": True,
        }
    ),
]


class Link(Specification):
    """The network between two nodes, as it is declared: nothing of it is measured."""

    bandwidth: Annotated[
        str, Field(pattern=r"^([1-9][0-9]{0,8}(\.[0-9]{1,3})?|0\.[0-9]{0,2}[1-9])[KMG]$", max_length=14)
    ] = "1G"
    """Bits a second, above 0, with K, M or G: 100M."""
    round_trip_milliseconds: NonNegativeDecimal = "0.3"
    """Round trip of a small message."""

    @property
    def bits_per_second(self) -> float:
        """The bandwidth as a number."""
        return float(self.bandwidth[:-1]) * _UNITS[self.bandwidth[-1]]


class Split(Specification):
    """The dense model over several nodes: plans are made and measured, and the fastest that pays becomes a variant.

    It is called ``split-<name>``. A plan pays if it is predicted to be faster than every variant of one node that is at
    least as accurate; one that does not is not published, and the manifest says so with its figures.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.sharesPercent) || (size(self.sharesPercent) == self.workers "
                "&& self.sharesPercent.sum() == 100)",
                _SHARES_RULE,
            ),
            ("self.layout != 'Rows' || !has(self.fineTuneEpochs) || self.fineTuneEpochs == 0", _TUNING_RULE),
        )
    )

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", max_length=32)]
    """Name of this entry, unique in the list."""
    workers: Annotated[int, Field(ge=2, le=8)] = 2
    """Nodes that compute one answer together."""
    shares_percent: Annotated[
        tuple[Annotated[int, Field(ge=1, le=99)], ...],
        Field(max_length=8, exclude_if=lambda value: not value, json_schema_extra=without_default),
    ] = ()
    """Part of the work of each worker in percent; absent: equal parts."""
    layout: Literal["Auto", "Rows", "Channels"] = "Auto"
    """How layers are divided; Auto: plans by rows, by channels, and by rows until a layer are searched for."""
    exchanges: ExchangeCount = "Auto"
    """Most times that the workers wait for each other for one answer, 0 to 16; Auto: as often as pays."""
    wire: Literal["UInt8", "Float32"] = "UInt8"
    """How channels travel, and rows in front of them. By rows alone everything travels as Float32."""
    precision: Annotated[
        Literal["Float32", "Int8"],
        Field(exclude_if=lambda value: value == "Float32", json_schema_extra=without_default),
    ] = "Float32"
    """Int8: shards are quantized as twins are, by ``methods.quantization``, which it needs. Absent: Float32."""
    fine_tune_epochs: Annotated[int, Field(ge=0, le=100, exclude_if=lambda value: not value)] = 0
    """Passes over the training samples in which the weights of a plan by channels are tuned; labels are not read."""
    max_accuracy_loss_points: NonNegativeDecimal = "1.0"
    """Most that a plan may lose against the dense model, in points of validation accuracy."""
    link: Link = Link()
    """The network that plans are searched for and compared over."""

    @model_validator(mode="after")
    def _shares_are_those_of_the_workers(self) -> Split:
        shares = self.shares_percent
        if shares and (len(shares) != self.workers or sum(shares) != 100):
            raise ValueError(_SHARES_RULE)
        return self

    @model_validator(mode="after")
    def _what_loses_nothing_is_not_tuned(self) -> Split:
        if self.layout == "Rows" and self.fine_tune_epochs:
            raise ValueError(_TUNING_RULE)
        return self

    @property
    def shares(self) -> tuple[int, ...]:
        """The share of each worker in percent."""
        return self.shares_percent or equal_shares(self.workers)

    @property
    def most_waits(self) -> int | None:
        """Most synchronisations of a plan; ``None``: as many as pay."""
        return None if self.exchanges == "Auto" else int(self.exchanges)


def equal_shares(workers: int) -> tuple[int, ...]:
    """Whole percents as equal as can be."""
    return tuple(100 // workers + (rank < 100 % workers) for rank in range(workers))


def check_splits(splits: tuple[Split, ...], *, has_quantization: bool) -> None:
    """Raise :class:`ValueError` for entries that do not go together, or with the other methods."""
    if len({entry.name for entry in splits}) != len(splits):
        raise ValueError("split holds a name twice")
    # Against float models of one node a quantized split would seem to pay for what is not its doing.
    quantized = next((entry.name for entry in splits if entry.precision == "Int8"), None)
    if quantized is not None and not has_quantization:
        raise ValueError(f"split {quantized}: precision Int8 needs quantization, for models of one node like it")
