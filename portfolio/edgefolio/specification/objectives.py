"""What users ask of an endpoint: latency, accuracy, memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgefolio.specification.base import ByteQuantity, DecimalString, Specification


class ObjectivesSpecification(Specification):
    """The objectives of an endpoint; what is absent is not asked.

    ``latencyP95Milliseconds`` is measured on the server, per request; ``networkLatencyMilliseconds`` is subtracted from
    it (the part of the budget that the way to the client takes); ``maxMemory`` bounds what the variant adds to the
    empty server.
    """

    latency_p95_milliseconds: Annotated[int, Field(ge=1, le=600_000)] | None = None
    network_latency_milliseconds: Annotated[int, Field(ge=0, le=600_000)] = 0
    min_accuracy_percent: DecimalString | None = None
    max_memory: ByteQuantity | None = None


class ObjectiveOverride(Specification):
    """Other objectives for the nodes that carry these labels."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    node_selector: Annotated[dict[str, str], Field(min_length=1, max_length=16)]
    objectives: ObjectivesSpecification
