"""Models of ``spec.serving`` and ``spec.switching``, with every constant of the decision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from edgefolio.specification.cluster import AdoptServing, ManagedServing
from edgefolio.specification.validation.base import PositiveDecimal, Specification
from edgefolio.specification.validation.cel import rules

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
    """Threads of the runtime on each endpoint, at most one for each core that Triton may use."""
    mode: Literal["Managed", "Adopt"] = "Managed"
    """Managed: Edgefolio runs Triton; Adopt: it joins Triton servers that run already."""
    http: Literal["Enabled", "Disabled"] | None = None
    """In a cluster, mode Managed: whether clients reach the model over HTTP (port 8000) besides gRPC (port 8001).
    Enable it for clients that you trust: Triton bounds neither requests nor connections. Absent: gRPC alone; pods from
    before this field go on serving HTTP until it is set."""
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
    """When an endpoint changes its variant. Down fast, up slow, and never on missing data."""

    policy: Literal["Auto", "Recommend", "Paused"] = "Auto"
    """``Auto`` switches, ``Recommend`` only says, ``Paused`` does neither."""
    down_after_seconds: Seconds = 10
    """The longest time that a violation must last before a faster variant is taken. A standby is taken as soon as the
    violation is sure: a severe one within a second, a slight one after this time."""
    up_after_seconds: Seconds = 300
    """A more accurate variant must be predicted to fit for this long."""
    min_dwell_seconds: Seconds = 60
    """Time between two switches. A memory emergency, a dead server, the way down to a standby and back up ignore it."""
    max_switches_per_hour: Annotated[int, Field(ge=1, le=3600)] = 30
    """Budget; a spent one holds, and its last switch is kept for the way down."""
    autonomy_after_seconds: Seconds = 30
    """An agent that hears nothing from the cluster for this long decides for itself."""
    annotation_policy: Literal["Override", "TightenOnly", "Ignore"] = "Override"
    """Whether annotations may change objectives, only tighten them, or neither."""
    standby: Literal["Auto", "None"] = "Auto"
    """A further variant kept in memory, for the way down. ``Auto``: the one that would be taken if the node became much
    slower, where memory allows; ``None``: only the variant that serves."""
    up_margin_percent: Percent = 15
    """A more accurate variant must be predicted this far below the objective (dead band)."""
    down_margin_percent: Percent = 5
    """The variant taken on the way down must be predicted this far below the objective."""
    settle_seconds: Seconds = 3
    """Measurements this soon after a switch are not believed."""
    stale_after_seconds: Seconds = 15
    """An older measurement counts as missing."""
    min_requests: Annotated[int, Field(ge=1, le=100_000)] = 10
    """A violation must show in this many requests, however long that takes; on the way down to a standby, in half of
    them if it is twice as severe."""
    factor_half_life_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    """Without traffic the compute factor falls back towards 1 this fast."""
    probe_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """The agent's own probe while there is no traffic."""
    quarantine_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    """A variant whose load or canary failed is not tried again for this long (doubles)."""
    memory_headroom_percent: Percent = 5
    """Of the limit, kept free during a switch."""
    node_busy_percent: Annotated[int, Field(ge=1, le=100)] = 85
    """Others use more of the node's processors: no more accurate variant is taken (100: never)."""
    observe_seconds: PositiveDecimal = "1"
    """Length of one cycle of the agent. While there is traffic it reads the counters four times a second in between."""
    window_seconds: Annotated[int, Field(ge=1, le=600)] = 5
    """Sliding window over which rates and latencies are formed."""
