"""``oneShot.latencyPercent`` in the resource: beside or instead of ``macsPercent``, and one piece of work."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgefolio.contract.work_pieces import pieces_of
from edgefolio.specification import Methods, OneShot


def methods(**one_shot: list[int]) -> Methods:
    return Methods.model_validate({"oneShot": one_shot})


def test_all_shares_by_time_are_one_piece() -> None:
    assert pieces_of(methods(latencyPercent=[70, 50], macsPercent=[50])) == ("oneshot-latency", "oneshot-50")
    assert pieces_of(methods(latencyPercent=[70], macsPercent=[])) == ("oneshot-latency",)
    assert pieces_of(methods(macsPercent=[50])) == ("oneshot-50",)


def test_what_was_stored_before_stays_as_it_was() -> None:
    before = methods(macsPercent=[50])
    assert before.one_shot is not None
    assert before.one_shot.model_dump(mode="json", by_alias=True) == {"macsPercent": [50]}
    assert OneShot().macs_percent == (75, 50, 35, 25)


@pytest.mark.parametrize("shares", [{"macsPercent": []}, {"macsPercent": [], "latencyPercent": []}])
def test_a_share_is_needed(shares: dict[str, list[int]]) -> None:
    with pytest.raises(ValidationError, match="macsPercent or latencyPercent"):
        methods(**shares)


@pytest.mark.parametrize("percent", [0, 4, 96, 100])
def test_a_share_by_time_is_from_5_to_95(percent: int) -> None:
    with pytest.raises(ValidationError):
        methods(latencyPercent=[percent])
