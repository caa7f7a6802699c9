"""Event log of the agent: one line per event, as text or as JSON."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any, TextIO

from edgefolio.contract.log_format import log_line
from edgefolio.decision.types import Decision, Prediction
from edgefolio.shown_text import printable
from edgefolio.uris import redacted

#: Fields that a text line omits.
_SHOWN_APART = frozenset({"event", "time", "message"})


class Reporter:
    """Prints events. Used from several threads."""

    def __init__(self, *, as_json: bool, stream: TextIO | None = None) -> None:
        self.as_json = as_json
        self._stream = stream or sys.stdout
        self._lock = threading.Lock()

    def event(self, event: str, message: str = "", **facts: Any) -> None:
        """Log ``event``. ``facts`` are fields of the JSON line under their names; None is left out."""
        known = {name: value for name, value in facts.items() if value is not None}
        if self.as_json:
            line = log_line({"event": event, **known, **({"message": message} if message else {})})
        else:
            shown = ", ".join(f"{name} {_text(value)}" for name, value in known.items() if name not in _SHOWN_APART)
            text = f"{time.strftime('%H:%M:%S')} {event:<9}  {message}" + (f"  ({shown})" if shown else "")
            line = printable(redacted(text))
        # The reader may have closed the pipe; serving goes on.
        with self._lock, contextlib.suppress(BrokenPipeError):
            print(line, file=self._stream, flush=True)

    def decision(self, decision: Decision, *, active: str | None, dry_run: bool = False) -> None:
        """Log a decision and its numbers."""
        if not self.as_json:
            target = f" -> {decision.target}" if decision.target and decision.target != active else ""
            would = " (dry run)" if dry_run else ""
            self.event(
                "decision", f"{decision.action.value} {active or 'nothing'}{target}: {decision.reason.value}{would}. "
                f"{decision.message}"
            )  # fmt: skip
            return
        self.event(
            "decision",
            decision.message,
            action=decision.action.value,
            reason=decision.reason.value,
            active=active,
            target=decision.target,
            variant=decision.target or active,
            objectivesMet=decision.objectives_met,
            computeFactor=_rounded(decision.compute_factor),
            transportMilliseconds=_rounded(decision.transport_milliseconds),
            arrivalRate=_rounded(decision.arrival_rate),
            rateIsCensored=decision.rate_is_censored or None,
            profile=decision.profile or None,
            predictions=[_prediction(entry) for entry in decision.predictions] or None,
            dryRun=dry_run or None,
        )


def _prediction(prediction: Prediction) -> dict[str, Any]:
    return {
        "variant": prediction.variant,
        "p95Milliseconds": _rounded(prediction.p95_milliseconds),
        "utilization": _rounded(prediction.utilization),
        "verdict": prediction.verdict,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _text(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)
