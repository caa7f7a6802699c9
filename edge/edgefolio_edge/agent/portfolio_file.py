"""Portfolio file, reread when it changes: objectives and switching rules may change while the agent runs."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edgefolio.decision import objectives_from_specification
from edgefolio.decision.types import Objectives
from edgefolio.errors import UserError
from edgefolio.specification import ModelPortfolio
from edgefolio.specification.loading import load_portfolio
from edgefolio.specification.serving import Switching
from edgefolio_edge.agent.records.event_log import Reporter


class ObjectivesSource(Protocol):
    """Source of an endpoint's objectives and switching rules: a file, or the operator's orders."""

    @property
    def objectives(self) -> Objectives:
        """The current objectives."""

    @property
    def switching(self) -> Switching:
        """The current switching rules."""

    @property
    def is_changed(self) -> bool:
        """Whether the next :meth:`reread` may find something new; cheap."""

    def reread(self, reporter: Reporter) -> bool:
        """Read the source again. Returns whether objectives or switching rules changed."""


class PortfolioFile:
    """A portfolio in a file. A change that makes it invalid is ignored, and logged once."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`UserError` if the file is no portfolio."""
        self._path = path
        self._signature = _signature(path)
        self.portfolio: ModelPortfolio = load_portfolio(path)

    @property
    def objectives(self) -> Objectives:
        """The current objectives."""
        return objectives_from_specification(self.portfolio.spec.objectives)

    @property
    def switching(self) -> Switching:
        """The current switching rules."""
        return self.portfolio.spec.switching

    @property
    def is_changed(self) -> bool:
        """Whether the file is another one since it was read."""
        return _signature(self._path) not in (None, self._signature)

    def reread(self, reporter: Reporter) -> bool:
        """Read the file again if it changed. Returns whether objectives or switching rules changed."""
        signature = _signature(self._path)
        if signature == self._signature or signature is None:
            return False
        self._signature = signature
        try:
            portfolio = load_portfolio(self._path)
        except UserError as error:
            reporter.event("error", f"The changed file is not used: {error.one_line()}")
            return False
        before, self.portfolio = self.portfolio, portfolio
        if _read_once(before) != _read_once(portfolio):
            reporter.event(
                "note", "spec.repository, spec.serving and spec.pinnedRevision are read at the start alone; restart."
            )
        changed = (before.spec.objectives, before.spec.switching) != (
            portfolio.spec.objectives,
            portfolio.spec.switching,
        )
        if changed:
            reporter.event(
                "objectives",
                "Objectives or switching rules changed.",
                objectives=portfolio.spec.objectives.model_dump(mode="json", by_alias=True, exclude_none=True),
            )
        return changed


def _read_once(portfolio: ModelPortfolio) -> tuple[object, ...]:
    return portfolio.spec.repository, portfolio.spec.serving, portfolio.spec.pinned_revision


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
