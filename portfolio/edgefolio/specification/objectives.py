"""Models of an endpoint's objectives: latency, accuracy, memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from edgefolio.specification.cluster import Labels
from edgefolio.specification.validation.base import ByteQuantity, PercentDecimal, Specification
from edgefolio.specification.validation.cel import rules, without_default


class ObjectivesSpecification(Specification):
    """The objectives of an endpoint; what is absent is not asked.

    ``latencyP95Milliseconds`` is measured on the server, per request; ``networkLatencyMilliseconds`` is subtracted from
    it (the part of the budget that the way to the client takes); ``maxMemory`` bounds what the variant adds to the
    empty server.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.latencyP95Milliseconds) || !has(self.networkLatencyMilliseconds)"
                " || self.networkLatencyMilliseconds < self.latencyP95Milliseconds",
                "networkLatencyMilliseconds leaves nothing of latencyP95Milliseconds",
            ),
        )
    )

    latency_p95_milliseconds: Annotated[int, Field(ge=1, le=600_000)] | None = None
    """95 % of requests are answered within this time, measured on the server."""
    network_latency_milliseconds: Annotated[int, Field(ge=0, le=600_000, json_schema_extra=without_default)] = 0
    """Part of that time which the way to the client takes."""
    min_accuracy_percent: PercentDecimal | None = None
    """Test accuracy of the served variant is at least this; with data.metric its test score in percent."""
    max_memory: ByteQuantity | None = None
    """What the variant may add to the empty server."""

    @model_validator(mode="after")
    def _network_leaves_time(self) -> ObjectivesSpecification:
        asked = self.latency_p95_milliseconds
        if asked is not None and self.network_latency_milliseconds >= asked:
            raise ValueError("networkLatencyMilliseconds leaves nothing of latencyP95Milliseconds")
        return self


class ObjectiveOverride(Specification):
    """Other objectives for the nodes that carry these labels."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of this entry, unique in the list."""
    node_selector: Annotated[Labels, Field(min_length=1)]
    """Labels that a node must carry, all of them."""
    objectives: ObjectivesSpecification
    """What is asked there; a field that is absent is taken from spec.objectives."""
