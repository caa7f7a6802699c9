"""The decision core: observation + objectives + profiles + state + now -> decision.

Pure: no clock, no input or output, no global state. The same function runs in the operator, in the agent, in tests and
in the replay of recorded traces in virtual time. How it decides: :mod:`edgefolio.decision.core` (the rules),
:mod:`~edgefolio.decision.choice` (the best variant), :mod:`~edgefolio.decision.estimates.prediction` (formulas),
:mod:`~edgefolio.decision.estimates.compute_factor` (measurement), :mod:`~edgefolio.decision.rules.timers` (against
flapping).
"""

from edgefolio.decision.core import decide
from edgefolio.decision.profiles import objectives_from_specification, profiles_from_manifest
from edgefolio.decision.state import state_after_failure, state_after_switch, state_from_json, state_to_json

__all__ = [
    "decide",
    "objectives_from_specification",
    "profiles_from_manifest",
    "state_after_failure",
    "state_after_switch",
    "state_from_json",
    "state_to_json",
]
