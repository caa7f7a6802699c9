"""How variants are served and how the one that fits is kept: every constant of the decision stands here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from edgefolio.specification.base import PositiveDecimal, Specification
from edgefolio.specification.cel import rules
from edgefolio.specification.cluster import AdoptServing, ManagedServing

Seconds = Annotated[int, Field(ge=0, le=86_400)]
Percent = Annotated[int, Field(ge=0, le=100)]


class Serving(Specification):
    """The name clients use, and the Triton that serves it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.mode != 'Adopt' || has(self.adopt)", "mode Adopt needs adopt.selector"),
            ("self.modelName == oldSelf.modelName", "modelName cannot be changed: make another ModelPortfolio"),
        )
    )

    model_name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$", max_length=63)]
    """Name under which clients ask for the model."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of the runtime on each endpoint."""
    mode: Literal["Managed", "Adopt"] = "Managed"
    """Managed: Edgefolio runs Triton; Adopt: it joins Triton servers that run already."""
    managed: ManagedServing = ManagedServing()
    """Settings of mode Managed."""
    adopt: AdoptServing | None = None
    """Settings of mode Adopt."""
    min_available_percent: Annotated[int, Field(ge=1, le=100)] = 90
    """Ready means that this part of the endpoints on Ready nodes serves a verified variant."""

    @model_validator(mode="after")
    def _adopt_says_which(self) -> Serving:
        if self.mode == "Adopt" and self.adopt is None:
            raise ValueError("mode Adopt needs adopt.selector")
        return self


class Switching(Specification):
    """When an endpoint changes its variant. Down fast, up slow, and never on missing data.

    | field | meaning |
    |---|---|
    | ``policy`` | ``Auto`` switches, ``Recommend`` only says, ``Paused`` does neither |
    | ``downAfterSeconds`` | a violation must last this long before a faster variant is taken |
    | ``upAfterSeconds`` | a more accurate variant must be predicted to fit for this long |
    | ``minDwellSeconds`` | time between two switches (a memory emergency or a dead server ignores it) |
    | ``maxSwitchesPerHour`` | budget; a spent one holds, and its last switch is kept for the way down |
    | ``autonomyAfterSeconds`` | an agent that hears nothing from the cluster for this long decides for itself |
    | ``annotationPolicy`` | whether annotations may change objectives, only tighten them, or neither |
    | ``standby`` | further variants kept in memory |
    | ``upMarginPercent`` | a more accurate variant must be predicted this far below the objective (dead band) |
    | ``downMarginPercent`` | the variant taken on the way down must be predicted this far below the objective |
    | ``settleSeconds`` | measurements this soon after a switch are not believed |
    | ``staleAfterSeconds`` | an older measurement counts as missing |
    | ``minRequests`` | a violation must show in this many requests, however long that takes |
    | ``factorHalfLifeSeconds`` | without traffic the compute factor falls back towards 1 this fast |
    | ``probeIntervalSeconds`` | the agent's own probe while there is no traffic |
    | ``quarantineSeconds`` | a variant whose load or canary failed is not tried again for this long (doubles) |
    | ``memoryHeadroomPercent`` | of the limit, kept free during a switch |
    | ``nodeBusyPercent`` | others use more of the node's processors: no more accurate variant is taken (100: never) |
    | ``observeSeconds`` | length of one cycle of the agent |
    | ``windowSeconds`` | sliding window over which rates and latencies are formed |
    """

    policy: Literal["Auto", "Recommend", "Paused"] = "Auto"
    down_after_seconds: Seconds = 10
    up_after_seconds: Seconds = 300
    min_dwell_seconds: Seconds = 60
    max_switches_per_hour: Annotated[int, Field(ge=1, le=3600)] = 12
    autonomy_after_seconds: Seconds = 30
    annotation_policy: Literal["Override", "TightenOnly", "Ignore"] = "Override"
    standby: Literal["None"] = "None"
    up_margin_percent: Percent = 15
    down_margin_percent: Percent = 5
    settle_seconds: Seconds = 3
    stale_after_seconds: Seconds = 15
    min_requests: Annotated[int, Field(ge=1, le=100_000)] = 10
    factor_half_life_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    probe_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    quarantine_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    memory_headroom_percent: Percent = 5
    node_busy_percent: Annotated[int, Field(ge=1, le=100)] = 85
    observe_seconds: PositiveDecimal = "1"
    window_seconds: Annotated[int, Field(ge=1, le=600)] = 5
