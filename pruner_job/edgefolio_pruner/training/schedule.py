"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["OneCycle", "Cosine", "Step", "Constant"]

_WARM_UP = 0.25
_FIRST_SHARE = 0.1
_LAST_SHARE = 0.002


def learning_rate(schedule: Schedule, *, step: int, steps: int, peak: float) -> float:
    """The rate of optimizer step ``step`` (0..steps-1) out of ``steps``.

    ``OneCycle`` rises from a tenth of ``peak`` over the first quarter and falls along a cosine to almost 0; ``Cosine``
    falls from ``peak``; ``Step`` divides by 10 at half and at three quarters of the way; ``Constant`` is ``peak``.
    """
    done = (step + 0.5) / max(steps, 1)
    if schedule == "Constant":
        return peak
    if schedule == "Step":
        return peak * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    if schedule == "OneCycle" and done < _WARM_UP:
        return peak * (_FIRST_SHARE + (1 - _FIRST_SHARE) * done / _WARM_UP)
    falling = (done - _WARM_UP) / (1 - _WARM_UP) if schedule == "OneCycle" else done
    return peak * (_LAST_SHARE + (1 - _LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * falling)))
