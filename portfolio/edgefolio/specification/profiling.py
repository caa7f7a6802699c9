"""Models of profiling: how variants are measured, and on which nodes once more."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from edgefolio.specification.cluster import Labels
from edgefolio.specification.validation.base import Specification
from edgefolio.specification.validation.cel import list_map, rules


class ProfiledNodes(Specification):
    """Nodes of one class of processors, on one of which a revision is measured."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", max_length=32)]
    """Name of this entry, unique in the list."""
    node_selector: Annotated[Labels, Field(min_length=1)]
    """Labels that the node must carry, all of them."""


class Profiling(Specification):
    """How variants are measured: threads, batches (the last is the request batch) and samples per variant and batch."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                # The API server validates the default of `profiling`, which is empty, before it fills it.
                "!has(self.batchSizes) || self.batchSizes.all(b, self.batchSizes.exists_one(c, c == b))",
                "batchSizes holds a number twice",
            ),
        )
    )

    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of the runtime while measuring."""
    batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=4)] = (1,)
    """Batches that are measured; the last is the request batch."""
    samples: Annotated[int, Field(ge=20, le=100_000)] = 200
    """Measurements per variant and batch."""
    rounds: Annotated[int, Field(ge=2, le=100)] = 5
    """Interleaved rounds they are spread over."""
    node_selectors: Annotated[
        tuple[ProfiledNodes, ...],
        Field(max_length=8, exclude_if=lambda value: not value, json_schema_extra=list_map("name")),
    ] = ()
    """In a cluster: for each entry a Job measures every published revision on one of these nodes, so that endpoints on
    such processors are decided for with what holds there. It runs there with repository.secretRef, which may write."""

    @model_validator(mode="after")
    def _selectors_have_names_of_their_own(self) -> Profiling:
        names = [entry.name for entry in self.node_selectors]
        if len(set(names)) != len(names):
            raise ValueError("nodeSelectors holds a name twice")
        return self

    @model_validator(mode="after")
    def _batches_are_distinct(self) -> Profiling:
        if len(set(self.batch_sizes)) != len(self.batch_sizes):
            raise ValueError("batchSizes holds a number twice")
        return self
