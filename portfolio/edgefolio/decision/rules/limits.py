"""Dwell time and hourly budget, which bind every switch but emergencies."""

from __future__ import annotations

from edgefolio.decision.context import Outcome, RuleContext
from edgefolio.decision.types import Reason


def limited(context: RuleContext, target: str, *, reserve: int = 0, dwells: bool = True) -> Outcome | None:
    """A hold by dwell time or budget (less ``reserve``), which bind every switch but emergencies.

    A switch to a resident variant need not dwell: it starts nothing, and the budget still bounds it.
    """
    switching, since = context.switching, context.since_switch
    if dwells and since is not None and since < switching.min_dwell_seconds:
        message = (
            f"{target} is due, but the last switch was {since:.1f} s ago, of at least {switching.min_dwell_seconds} s."
        )
        return context.hold(Reason.MIN_DWELL, message, target=target), context.state
    spent = len(context.state.recent_switches)
    if spent + reserve >= switching.max_switches_per_hour:
        kept = " and the last is kept for the way down" if reserve else ""
        message = f"{target} is due, but {spent} of {switching.max_switches_per_hour} switches an hour are spent{kept}."
        return context.hold(Reason.SWITCH_BUDGET_SPENT, message, target=target), context.state
    return None
