"""The formulas, against known values and against simulated queues."""

from __future__ import annotations

import math
import random

import pytest
from building import by_name
from simulator import profile

from edgefolio.decision.estimates.prediction import (
    Conditions,
    expected_latency,
    service_variability,
    total_p95,
    wait_p95,
)
from edgefolio.decision.types import VariantProfile


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5, 1.0])
def test_service_variability_is_that_of_a_log_normal(sigma: float) -> None:
    mean = 10.0
    p95 = mean * math.exp(1.6448536 * sigma - sigma**2 / 2)
    found = service_variability(with_p95(mean, p95))
    assert found == pytest.approx(math.exp(sigma**2) - 1, rel=1e-4)


def test_service_variability_of_an_impossible_tail_is_finite() -> None:
    assert service_variability(with_p95(1.0, 1e9)) < 20
    assert service_variability(with_p95(1.0, 0.5)) == 0


def test_parts_add_in_quadrature_above_their_means() -> None:
    assert total_p95(service=10, service_p95=13, mean_wait=5, wait=9) == pytest.approx(15 + 5)
    assert total_p95(service=10, service_p95=13, mean_wait=0.1, wait=0) == pytest.approx(13.1)


def test_nobody_waits_for_an_idle_server() -> None:
    assert wait_p95(0.0, utilization=0.5, service=10) == 0
    assert wait_p95(0.1, utilization=0.01, service=10) == 0


def test_bursts_count_although_the_server_is_seldom_busy() -> None:
    # Busy 4 % of the time, and yet a mean wait of two services: requests come in bursts.
    assert wait_p95(20, utilization=0.04, service=10) == pytest.approx(20 * math.log(20))


@pytest.mark.parametrize("utilization", [0.1, 0.3, 0.6, 0.85])
@pytest.mark.parametrize("sigma", [0.12, 0.5])
def test_predicted_p95_is_that_of_a_simulated_queue(utilization: float, sigma: float) -> None:
    mean = 10.0
    entry = with_p95(mean, mean * math.exp(1.6448536 * sigma - sigma**2 / 2))
    rate = utilization / mean * 1000
    predicted = expected_latency(entry, Conditions(arrival_rate=rate))
    measured = simulated_p95(rate=rate / 1000, mean=mean, sigma=sigma)
    assert predicted.utilization == pytest.approx(utilization)
    assert predicted.p95_milliseconds == pytest.approx(measured, rel=0.12)


def test_a_closed_loop_is_predicted_from_the_requests_in_flight() -> None:
    large = by_name("large")
    found = expected_latency(large, Conditions(compute_factor=2, transport_milliseconds=1, in_flight=4))
    assert found.p95_milliseconds == pytest.approx(1 + 2 * 12 + 3 * 20)
    assert found.utilization is None


def test_what_cannot_keep_up_has_no_p95() -> None:
    found = expected_latency(by_name("large"), Conditions(arrival_rate=100))
    assert found.p95_milliseconds is None
    assert found.utilization == pytest.approx(1.0)


def test_merged_requests_share_an_execution() -> None:
    alone = expected_latency(by_name("large"), Conditions(arrival_rate=80))
    merged = expected_latency(by_name("large"), Conditions(arrival_rate=80, merged_requests=4))
    assert alone.utilization == pytest.approx(0.8)
    assert merged.utilization == pytest.approx(0.2)


def with_p95(mean: float, p95: float) -> VariantProfile:
    base = profile("any", 1, 90, mean, 1)
    return VariantProfile(**{**vars(base), "p95_milliseconds": p95})


def simulated_p95(*, rate: float, mean: float, sigma: float, requests: int = 60_000) -> float:
    generator = random.Random(5)
    free = 0.0
    now = 0.0
    times = []
    for _ in range(requests):
        now += generator.expovariate(rate)
        start = max(now, free)
        free = start + mean * math.exp(generator.gauss(0, sigma) - sigma * sigma / 2)
        times.append(free - now)
    return sorted(times)[int(0.95 * requests)]
