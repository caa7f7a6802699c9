"""Settings and outputs of an agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgefolio_edge.agent.cycle_result import CycleResult
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.agent.records.metrics import AgentMetrics
from edgefolio_edge.health_files import Health


@dataclass(frozen=True, kw_only=True)
class AgentOptions:
    """Settings of an agent. ``record`` is the file for a trace; a ``dry_run`` decides and changes nothing."""

    state_directory: Path
    record: Path | None = None
    dry_run: bool = False
    memory_limit_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class AgentOutputs:
    """The outputs of an agent; ``after_cycle`` gets the result of each cycle."""

    reporter: Reporter
    metrics: AgentMetrics
    health: Health = field(default_factory=Health)
    after_cycle: Callable[[CycleResult], None] = lambda _result: None
