"""Up to a more accurate variant: at once where a minimum asks for it, after a calm where it just fits."""

from __future__ import annotations

from dataclasses import replace

from building import NOW, decided, memory, observation, repeated, traffic

from edgefolio.decision.types import Action, FittingVariant, Objectives, Reason, State, UpgradeBackoff


def test_a_raised_minimum_is_met_without_waiting_for_calm() -> None:
    asked = Objectives(latency_p95_milliseconds=30, min_accuracy_percent=89)
    decision, _ = decided(observation("small"), objectives=asked)
    assert (decision.action, decision.reason) == (Action.SWITCH, Reason.ACCURACY_BELOW_MINIMUM)
    assert decision.target == "large"
    held, _ = decided(observation("small"), objectives=asked, state=State(last_switch_at=NOW - 5))
    assert (held.reason, held.target) == (Reason.MIN_DWELL, "large")


def test_a_minimum_that_none_reaches_brings_the_most_accurate() -> None:
    asked = Objectives(latency_p95_milliseconds=3, min_accuracy_percent=99)
    decision, _ = decided(observation("small"), objectives=asked)
    assert decision.target == "large"
    decision, _ = repeated(observation("large"), objectives=asked, seconds=20)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.OBJECTIVES_NOT_MET)


def test_a_raised_minimum_waits_for_memory() -> None:
    asked = Objectives(min_accuracy_percent=91)
    decision, _ = decided(observation("mid", memory=memory(limit=130, used=82)), objectives=asked)
    assert (decision.reason, decision.target) == (Reason.INSUFFICIENT_SWITCH_MEMORY, "large")


def test_a_more_accurate_variant_must_fit_for_long() -> None:
    seen = observation("mid")
    early, state = repeated(seen, seconds=29)
    assert (early.reason, early.target) == (Reason.CALM_TOO_SHORT, "large")
    late, after = decided(seen, state=state, now=NOW + 30)
    assert (late.action, late.reason, late.target) == (Action.SWITCH, Reason.MORE_ACCURATE_FITS, "large")
    assert (after.upgraded_variant, after.upgraded_at) == ("large", NOW + 30)


def test_the_dead_band_keeps_a_variant_out_that_would_just_fit() -> None:
    asked = Objectives(latency_p95_milliseconds=14)
    decision, _ = repeated(observation("mid", traffic=traffic("mid", rate=1)), objectives=asked, seconds=60)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.DEAD_BAND)
    assert "large" in decision.message


def test_an_upgrade_is_not_taken_to_a_variant_that_could_not_keep_up() -> None:
    seen = observation("mid", traffic=traffic("mid", rate=95))
    decision, _ = repeated(seen, objectives=Objectives(), seconds=60)
    assert decision.reason is Reason.OBJECTIVES_MET
    large = next(entry for entry in decision.predictions if entry.variant == "large")
    assert "busy 95 % of the time" in large.verdict


def test_a_step_up_waits_for_a_better_one_that_is_nearly_due() -> None:
    state = State(
        observed_at=NOW - 1,
        fitting=(
            FittingVariant(variant="mid", since=NOW - 30),
            FittingVariant(variant="large", since=NOW - 25),
        ),
    )
    waiting, _ = decided(observation("small"), state=state)
    assert (waiting.reason, waiting.target) == (Reason.CALM_TOO_SHORT, "large")
    state = replace(state, fitting=(state.fitting[0], FittingVariant(variant="large", since=NOW - 5)))
    step, _ = decided(observation("small"), state=state)
    assert (step.reason, step.target) == (Reason.MORE_ACCURATE_FITS, "mid")


def test_an_upgrade_leaves_the_last_switch_for_the_way_down() -> None:
    state = State(recent_switches=tuple(NOW - 100 * number for number in range(11)))
    up, _ = repeated(observation("mid"), state=state, seconds=40)
    assert (up.reason, up.target) == (Reason.SWITCH_BUDGET_SPENT, "large")
    down, _ = repeated(observation(traffic=traffic(factor=3)), state=state, seconds=20)
    assert down.reason is Reason.LATENCY_VIOLATED


def test_an_upgrade_that_bounces_waits_twice_as_long_each_time() -> None:
    state = State(upgraded_variant="large", upgraded_at=NOW)
    waits = []
    for round_number in range(3):
        start = NOW + 1000 * round_number
        state = replace(state, upgraded_variant="large", upgraded_at=start, last_switch_at=None, recent_switches=())
        slow = observation(traffic=traffic(factor=3))
        decision, state = repeated(slow, state=state, now=start, seconds=10)
        assert decision.action is Action.SWITCH
        waits.append(state.upgrade_backoffs[0].until - start - 5)
    assert waits == [30, 60, 120]


def test_a_bounced_upgrade_bars_what_is_as_slow_but_not_what_is_faster() -> None:
    state = State(upgrade_backoffs=(UpgradeBackoff(variant="mid", until=NOW + 500, bounces=1),))
    decision, _ = repeated(observation("tiny"), state=state, seconds=40)
    assert (decision.action, decision.target) == (Action.SWITCH, "small")
    held, _ = repeated(observation("small"), state=state, seconds=40)
    assert (held.action, held.reason) == (Action.HOLD, Reason.CALM_TOO_SHORT)
    assert "it is tried again in" in held.message


def test_an_upgrade_that_holds_clears_its_record() -> None:
    state = State(
        upgraded_variant="large",
        upgraded_at=NOW,
        upgrade_backoffs=(UpgradeBackoff(variant="large", until=NOW - 5, bounces=3),),
    )
    _, kept = decided(observation(), state=state, now=NOW + 60)
    assert kept.upgrade_backoffs
    _, cleared = decided(observation(), state=state, now=NOW + 71)
    assert (cleared.upgrade_backoffs, cleared.upgraded_variant) == ((), None)
