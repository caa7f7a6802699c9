"""Models of a task and of the metric by which its variants are compared."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from edgefolio.specification.validation.base import Specification
from edgefolio.specification.validation.cel import rules

Task = Literal["Classification", "MultiLabel", "Regression", "Segmentation", "Custom"]
MetricName = Literal["Top1", "TopK", "BalancedAccuracy", "F1", "MAE", "RMSE", "MeanIoU", "Agreement"]

#: The metrics of each task, the one first that is taken where none is named. ``factory`` fits all of them.
METRICS: dict[str, tuple[MetricName, ...]] = {
    "Classification": ("Top1", "TopK", "BalancedAccuracy", "F1", "Agreement"),
    "MultiLabel": ("F1", "Agreement"),
    "Regression": ("MAE", "RMSE", "Agreement"),
    "Segmentation": ("MeanIoU", "Top1", "Agreement"),
    "Custom": ("Agreement",),
}

_ONE = "metric needs one of name and factory"
_DIRECTION = "metric.direction belongs to metric.factory: Higher or Lower is better"
_K = "metric.k belongs to TopK"
METRIC_OF_TASK_RULE = "data.metric.name does not measure this data.task"
CUSTOM_NEEDS_METRIC = "data.task Custom needs data.metric: a factory, or Agreement"


class Metric(Specification):
    """The score of a variant: a metric by name, or a callable of your own.

    ``factory: module:callable`` is called with all outputs and all targets, as tensors of torch with the samples on
    axis 0 (outputs as a tuple where there are several), and returns one number; ``direction`` says which is better.
    ``Agreement`` compares with the dense model's answers, and needs no labels.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.name) != has(self.factory)", _ONE),
            ("has(self.factory) == has(self.direction)", _DIRECTION),
            ("!has(self.k) || (has(self.name) && self.name == 'TopK')", _K),
        )
    )

    name: MetricName | None = None
    """A metric by name."""
    k: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Of TopK: how many of the largest outputs count; absent: 5."""
    factory: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """A metric of your own, module:callable."""
    direction: Literal["Higher", "Lower"] | None = None
    """Of a factory: whether a higher or a lower number is better."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if (self.name is None) == (self.factory is None):
            raise ValueError(_ONE)
        if (self.factory is None) != (self.direction is None):
            raise ValueError(_DIRECTION)
        if self.k is not None and self.name != "TopK":
            raise ValueError(_K)
        return self


def measures(task: Task, metric: Metric | None) -> bool:
    """Whether ``metric`` can be measured for ``task``."""
    if metric is None:
        return task != "Custom"
    return metric.name is None or metric.name in METRICS[task]


def _by_name(task: str) -> str:
    names = ", ".join(f"'{name}'" for name in METRICS[task])
    return f"(self.task == '{task}' && self.metric.name in [{names}])"


#: The same for the API server.
TASK_RULES = (
    (
        "!has(self.metric) || !has(self.metric.name) || " + " || ".join(_by_name(task) for task in METRICS),
        METRIC_OF_TASK_RULE,
    ),
    ("self.task != 'Custom' || has(self.metric)", CUSTOM_NEEDS_METRIC),
)
