"""What the agent learned of single variants is what the operator decides from, too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio.contract.endpoint_report import report_of_decision, state_of
from edgefolio.decision.estimates.own_factors import relative_factor
from edgefolio.decision.types import Action, Decision, OwnFactor, Reason, State
from edgefolio.specification.endpoint import EndpointStatus
from edgefolio_operator.endpoints.assignment import carried

HOLD = Decision(
    action=Action.HOLD, reason=Reason.OBJECTIVES_MET, target=None, message="It serves.", objectives_met=True
)


@given(small=st.floats(0.1, 10.0), large=st.floats(0.1, 10.0))
def test_the_operator_predicts_a_variant_as_the_agent_does(small: float, large: float) -> None:
    learned = State(own_factors=(OwnFactor(variant="small", factor=small), OwnFactor(variant="large", factor=large)))
    status = EndpointStatus(decision=report_of_decision(HOLD, learned, decided_by_agent=False))
    for memory in (None, State()):
        state = carried(memory, status)
        expected = relative_factor(learned, "large", "small")
        assert relative_factor(state, "large", "small") == pytest.approx(expected, rel=0.1)


def test_a_report_of_an_agent_that_knows_of_none_has_none() -> None:
    assert state_of(EndpointStatus().decision).own_factors == ()
    report = report_of_decision(HOLD, State(), decided_by_agent=False)
    assert "ownFactors" not in report.model_dump(mode="json", by_alias=True, exclude_defaults=True)
