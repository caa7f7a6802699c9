"""The benchmark of violations: stories that a seed determines, a server that queues, and a page from runs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.violations import stories
from benchmarks.violations.__main__ import POLICIES, profiles
from benchmarks.violations.endpoint import RESIDENT_SECONDS, Command, Endpoint
from benchmarks.violations.policies import Fixed, best, highest_rate, p95_at
from benchmarks.violations.stories import Story, stepwise
from benchmarks.violations.summary import markdown, summarized

VARIANTS = profiles()
SLOWEST = max(VARIANTS, key=lambda variant: variant.mean_milliseconds)


def test_a_story_is_determined_by_its_seed() -> None:
    first, again, other = (stories.generated("neighbours", seed) for seed in (1, 1, 2))
    assert first.arrivals == again.arrivals
    assert first.arrivals != other.arrivals
    assert all(first.factor(at + 0.01) >= 3 for at in first.onsets)


def test_a_file_is_scaled_to_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "requests.txt"
    path.write_text("\n".join(["40", "20", "60"] * 200))
    story = stories.from_file(path, 1, rate=10.0, stretch=(0, 600))
    assert len(story.arrivals) == pytest.approx(6000, rel=0.05)
    assert list(story.arrivals) == sorted(story.arrivals)
    assert stories.sha256_of(path) == stories.sha256_of(path)


def test_the_simulated_server_answers_as_predicted() -> None:
    story = Story(
        name="plain",
        seconds=600.0,
        arrivals=stories.poisson(lambda _: 15.0, highest=15, seconds=600.0, chance=random.Random(1)),
        factor=lambda _: 1.0,
    )
    outcome = Endpoint(story, VARIANTS, Fixed(largest=True), objective=1000, seed=1).run()
    latencies = sorted(outcome.latencies)
    predicted = p95_at(SLOWEST, factor=1.0, rate=15.0)
    assert outcome.requests == len(story.arrivals)
    assert predicted == pytest.approx(latencies[int(0.95 * len(latencies))], rel=0.15)
    assert best(sorted(VARIANTS, key=lambda each: -each.rank), objective=1000, factor=1, rate=1) == SLOWEST.name
    assert highest_rate(SLOWEST, objective=60) < 1000 / SLOWEST.mean_milliseconds


def test_a_switch_costs_its_time_and_a_load_slows_what_serves() -> None:
    class Once:
        def start(self, *_: object) -> str:
            return SLOWEST.name

        def act(self, endpoint: Endpoint) -> Command:
            return Command(serve=VARIANTS[0].name, beside=()) if endpoint.now >= 1 else Command()

    story = Story(name="plain", seconds=4.0, arrivals=[0.1 * count for count in range(40)], factor=stepwise([]))
    endpoint = Endpoint(story, VARIANTS, Once(), objective=100, seed=1)
    outcome = endpoint.run()
    ((at, name),) = outcome.switches
    assert name == VARIANTS[0].name
    assert at >= 1 + VARIANTS[0].load_milliseconds / 1000
    assert at - 1 > RESIDENT_SECONDS
    assert endpoint.resident == {name}


def test_edgefolio_goes_down_within_seconds_and_stays_within_its_budget() -> None:
    story = Story(
        name="flapping",
        seconds=900.0,
        arrivals=stories.poisson(lambda _: 12.0, highest=12, seconds=900.0, chance=random.Random(3)),
        factor=stepwise([(at + shift, value) for at in range(60, 900, 60) for shift, value in ((0, 3.2), (25, 1.0))]),
        onsets=tuple(float(at) for at in range(60, 900, 60)),
    )
    objective = 2.5 * SLOWEST.mean_milliseconds
    ours, fixed = (
        Endpoint(story, VARIANTS, POLICIES[policy](), objective=objective, seed=1).run()
        for policy in ("edgefolio", "largest")
    )
    assert 5 * ours.slow < fixed.slow
    assert 0 < len(ours.switches) <= 30
    assert min(ours.left) < 2.0


def test_the_page_says_what_was_reached() -> None:
    run = {
        "seconds": 60.0, "requests": 100, "slow": 2, "accuracyPercent": 90.0, "p50": 1.0, "p95": 2.0, "p99": 3.0,
        "switches": 1, "downshifts": 1, "leftSeconds": [0.5],
    }  # fmt: skip
    runs = {f"bursts/tight/{policy}/{seed}": run for policy in POLICIES for seed in (0, 1)}
    runs |= {f"onsets/tight/edgefolio/{seed}": run for seed in (0, 1)}
    content = {
        "command": "x", "machine": {"commit": "c", "python": "3"}, "variants": [vars(SLOWEST)],
        "objectives": {"tight": 2}, "stories": stories.DESCRIPTIONS, "runs": runs, "summary": summarized(runs),
    }  # fmt: skip
    page = markdown(content)
    assert "1.0x fewer" in page
    assert "0.50 s over 2 onsets" in page
    assert "not in bursts, tight (p95)" in page
