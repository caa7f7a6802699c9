"""The rules that Edgefolio is compared with, each on the same profiles; all pay the same for a switch.

They keep one variant loaded and load another before they leave it, as their systems do. InfAdapter and Proteus choose
for many servers; here stands a simplified form of the part that chooses the variant of one, not checked against the
papers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from benchmarks.violations.endpoint import (
    LOAD_SLOWER,
    OVERHEAD_MILLISECONDS,
    TICK_SECONDS,
    TRANSPORT_MILLISECONDS,
    Command,
    Endpoint,
)
from benchmarks.violations.stories import Story

from edgefolio.decision.estimates.prediction import Conditions, expected_latency
from edgefolio.decision.types import VariantProfile


class Fixed:
    """One variant throughout: the most accurate, or the fastest."""

    def __init__(self, *, largest: bool) -> None:
        self._largest = largest

    def start(self, _story: Story, variants: Sequence[VariantProfile], _objective: float) -> str:
        """That variant."""
        ordered = sorted(variants, key=lambda variant: variant.rank)
        return (ordered[-1] if self._largest else ordered[0]).name

    def act(self, _endpoint: Endpoint) -> Command:
        """Nothing."""
        return Command()


class Threshold:
    """Reactive: p95 of five seconds above the objective is one variant down, below half of it for a minute one up."""

    def start(self, _story: Story, variants: Sequence[VariantProfile], _objective: float) -> str:
        """The most accurate variant."""
        self._order = [variant.name for variant in sorted(variants, key=lambda variant: variant.rank)]
        self._recent: deque[float] = deque()
        self._seen = 0
        self._ends: deque[tuple[float, float]] = deque()
        self._calm_since = 0.0
        return self._order[-1]

    def act(self, endpoint: Endpoint) -> Command:
        """One step down or up, and then nothing for five seconds."""
        latencies = endpoint.outcome.latencies
        for latency in latencies[self._seen :]:
            self._ends.append((endpoint.now, latency))
        self._seen = len(latencies)
        while self._ends and self._ends[0][0] < endpoint.now - 5:
            self._ends.popleft()
        window = sorted(latency for _, latency in self._ends)
        if not window or endpoint.now - endpoint.switched_at < 5:
            return Command()
        p95 = window[min(len(window) - 1, int(0.95 * len(window)))]
        if p95 > endpoint.objective / 2:
            self._calm_since = endpoint.now
        place = self._order.index(endpoint.active)
        if p95 > endpoint.objective and place > 0:
            return Command(serve=self._order[place - 1], beside=())
        if endpoint.now - self._calm_since >= 60 and place + 1 < len(self._order):
            self._calm_since = endpoint.now
            return Command(serve=self._order[place + 1], beside=())
        return Command()


class InfAdapter:
    """InfAdapter's rule (EuroMLSys 2023): every 30 s the most accurate variant whose profiled throughput is enough.

    Enough for the load predicted: here the highest of the last two minutes, in place of its LSTM. The throughput of a
    variant is the rate at which its profile meets the objective. The node's slowness is not in the rule.
    """

    interval = 30.0
    headroom = 1.0

    def start(self, _story: Story, variants: Sequence[VariantProfile], objective: float) -> str:
        """The most accurate variant."""
        self._variants = sorted(variants, key=lambda variant: -variant.rank)
        self._throughput = {variant.name: self.throughput(variant, objective) for variant in variants}
        self._arrivals: deque[float] = deque()
        self._place = 0
        self._decided_at = -math.inf
        return self._variants[0].name

    def throughput(self, variant: VariantProfile, objective: float) -> float:
        """Requests per second at which p95 is at the objective, on an idle node of the profile's kind."""
        return highest_rate(variant, objective=objective)

    def demand(self, _now: float) -> float:
        """The load to provide for, in requests per second: the busiest ten seconds of the last two minutes."""
        counts: dict[int, int] = {}
        for at in self._arrivals:
            counts[int(at // 10)] = counts.get(int(at // 10), 0) + 1
        return max(counts.values(), default=0) / 10

    def act(self, endpoint: Endpoint) -> Command:
        """Decide when it is due."""
        arrivals, now = endpoint.story.arrivals, endpoint.now
        while self._place < len(arrivals) and arrivals[self._place] <= now:
            self._arrivals.append(arrivals[self._place])
            self._place += 1
        while self._arrivals and self._arrivals[0] < now - 120:
            self._arrivals.popleft()
        if now - self._decided_at < self.interval:
            return Command()
        self._decided_at = now
        demand = self.headroom * self.demand(now)
        enough = (variant.name for variant in self._variants if self._throughput[variant.name] >= demand)
        return Command(serve=next(enough, self._variants[-1].name), beside=())


class Proteus(InfAdapter):
    """Proteus' rule (ASPLOS 2024): as above with its own demand and throughput, and at once when demand outruns it.

    Demand is an average that forgets (half-life 10 s) with 5 % added; a variant counts with the rate at which its queue
    and execution take half of the objective each at the most; the plan is made anew every 30 s.
    """

    headroom = 1.05

    def throughput(self, variant: VariantProfile, objective: float) -> float:
        """1000 / execution time where that is at most half of the objective, else none."""
        mean = variant.p95_milliseconds + TRANSPORT_MILLISECONDS
        return 1000 / mean if mean <= objective / 2 else 0.0

    def demand(self, now: float) -> float:
        """An average of the rate that forgets with a half-life of 10 s."""
        decay = math.log(2) / 10
        return decay * sum(math.exp(decay * (at - now)) for at in self._arrivals)

    def act(self, endpoint: Endpoint) -> Command:
        """Decide when it is due, or when more comes than the variant answers."""
        if int(endpoint.now / TICK_SECONDS) % 4 == 0:
            demand = self.headroom * self.demand(endpoint.now)
            if demand > self._throughput[endpoint.active] and endpoint.now - self._decided_at >= 5:
                self._decided_at = -math.inf
        return super().act(endpoint)


class Oracle:
    """Knows the future: the most accurate variant that meets the objective over the next seconds, as the node then is.

    It goes down just before it must, to whatever it wants (which it has made resident in time, where there is room for
    two), and up only where that holds for a while. The true slowness and the true rate are its own.
    """

    ahead_seconds = 2.0
    hold_seconds = 10.0

    def start(self, story: Story, variants: Sequence[VariantProfile], objective: float) -> str:
        """The best for the first seconds."""
        self._variants = sorted(variants, key=lambda variant: -variant.rank)
        self._objective = objective
        self._rates = _rates(story)
        return self._best(story, 0.0, self.ahead_seconds)

    def act(self, endpoint: Endpoint) -> Command:
        """Decide anew."""
        story, now = endpoint.story, endpoint.now
        wanted = self._best(story, now, self.ahead_seconds)
        ranks = {variant.name: variant.rank for variant in self._variants}
        if ranks[wanted] > ranks[endpoint.active]:
            variant = endpoint.variants[wanted]
            loading = variant.load_milliseconds * story.factor(now) * LOAD_SLOWER / 1000
            wanted = self._best(story, now, self.hold_seconds + loading)
            if ranks[wanted] <= ranks[endpoint.active]:
                wanted = endpoint.active
        if wanted != endpoint.active:
            return Command(serve=wanted, beside=(endpoint.active,) if story.has_room(now) else ())
        if not story.has_room(now):
            return Command(beside=())
        soon = [self._best(story, now + ahead, self.ahead_seconds) for ahead in (2.0, 4.0, 6.0, 8.0, 10.0)]
        lower = [name for name in soon if ranks[name] < ranks[endpoint.active]]
        return Command(beside=(min(lower, key=lambda name: ranks[name]),)) if lower else Command()

    def _best(self, story: Story, now: float, ahead: float) -> str:
        factors = [story.factor(now + ahead * step / 4) for step in range(5)]
        rate = max(self._rates[max(0, int(now) - 2) : int(now + ahead) + 1] or [0.0])
        return best(self._variants, objective=self._objective, factor=max(factors), rate=rate)


def best(variants: Sequence[VariantProfile], *, objective: float, factor: float, rate: float) -> str:
    """The most accurate of ``variants`` (most accurate first) that meets the objective then, else the fastest."""
    for variant in variants:
        p95 = p95_at(variant, factor=factor, rate=rate)
        if p95 is not None and p95 <= objective:
            return variant.name
    return min(variants, key=lambda variant: variant.mean_milliseconds).name


def p95_at(variant: VariantProfile, *, factor: float, rate: float) -> float | None:
    """The variant's p95 in milliseconds on the simulated node; ``None`` if it cannot keep up."""
    slower = (variant.mean_milliseconds + OVERHEAD_MILLISECONDS) / variant.mean_milliseconds
    found = expected_latency(
        variant,
        Conditions(compute_factor=factor * slower, transport_milliseconds=TRANSPORT_MILLISECONDS, arrival_rate=rate),
    )
    return None if found.utilization is not None and found.utilization > 0.9 else found.p95_milliseconds


def highest_rate(variant: VariantProfile, *, objective: float) -> float:
    """The highest rate at which the variant meets the objective on an idle node."""
    low, high = 0.0, 1000 / variant.mean_milliseconds
    for _ in range(40):
        middle = (low + high) / 2
        found = p95_at(variant, factor=1.0, rate=middle)
        low, high = (middle, high) if found is not None and found <= objective else (low, middle)
    return low


def _rates(story: Story) -> list[float]:
    """For each second the mean rate of the ten seconds around it: what the generator meant, not its noise."""
    counts = [0] * (int(story.seconds) + 1)
    for at in story.arrivals:
        counts[int(at)] += 1
    return [sum(counts[max(0, at - 5) : at + 5]) / len(counts[max(0, at - 5) : at + 5]) for at in range(len(counts))]
