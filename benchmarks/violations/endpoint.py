"""An endpoint in virtual time: one server, first come first served, and a policy that is asked four times a second.

What a switch costs was measured (``benchmarks/results/switching.md``): an unload and two canaries to a resident
variant, a load in proportion to the node's slowness else, during which what serves is slowed.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.violations.stories import Story

from edgefolio.decision.types import Reading, VariantProfile

TICK_SECONDS = 0.25
RESIDENT_SECONDS = 0.012
#: A load beside a neighbour that takes the core: 0.5 to 1.7 s where it takes 0.2 s alone.
LOAD_SLOWER = 1.5
SERVING_SLOWER = 1.25
TRANSPORT_MILLISECONDS = 0.8
#: What the server spends inside a request besides the model, in the unit of the profile: small variants suffer most.
OVERHEAD_MILLISECONDS = 0.4


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a policy wants: the variant to serve, and those to be resident beside it (``None``: as they are)."""

    serve: str | None = None
    beside: tuple[str, ...] | None = None


class Policy(Protocol):
    """A rule that chooses variants."""

    def start(self, story: Story, variants: Sequence[VariantProfile], objective: float, /) -> str:
        """Begin a story; the variant to serve at first."""

    def act(self, endpoint: Endpoint, /) -> Command:
        """What to do now."""


@dataclass(kw_only=True)
class Outcome:
    """What came of a story; ``left`` has, for each onset met on a variant that was left, how long it still answered."""

    requests: int = 0
    slow: int = 0
    accuracy_sum: float = 0.0
    latencies: list[float] = field(default_factory=list)
    switches: list[tuple[float, str]] = field(default_factory=list)
    left: list[float] = field(default_factory=list)


class Endpoint:
    """The endpoint of one story under one policy. Seconds count from the story's start."""

    def __init__(
        self, story: Story, variants: Sequence[VariantProfile], policy: Policy, *, objective: float, seed: int
    ) -> None:
        self.story = story
        self.variants = {variant.name: variant for variant in variants}
        self.objective = objective
        self.now = 0.0
        self.active = self._first = policy.start(story, variants, objective)
        self.resident = {self.active}
        self.reading = Reading(
            seconds=TICK_SECONDS,
            requests=0,
            mean_compute_milliseconds=0.0,
            mean_queue_milliseconds=0.0,
            mean_total_milliseconds=0.0,
            pending=0,
        )
        self.switched_at = -math.inf
        self.outcome = Outcome()
        self._policy = policy
        self._chance = random.Random(f"service {seed}")
        self._sigma = {name: _sigma(variant) for name, variant in self.variants.items()}
        self._loading: tuple[str, float, bool] | None = None
        self._becomes: tuple[str, float] | None = None
        self._waiting: deque[float] = deque()
        self._free_at = 0.0
        self._done: deque[tuple[float, float, float]] = deque()
        self._answered: list[tuple[float, str]] = []

    @property
    def is_loading(self) -> bool:
        """Whether a variant is being loaded."""
        return self._loading is not None

    def run(self) -> Outcome:
        """Run the story to its end."""
        arrivals, place = self.story.arrivals, 0
        while self.now < self.story.seconds:
            end = self.now + TICK_SECONDS
            while place < len(arrivals) and arrivals[place] < end:
                self._waiting.append(arrivals[place])
                place += 1
                # Answered as they come, so that a queue is no longer than it is.
                self._serve(until=min(end, arrivals[place] if place < len(arrivals) else end))
            self._serve(until=end)
            self.now = end
            self._observe()
            self._obey(self._policy.act(self))
        self._judge_onsets()
        return self.outcome

    def probed(self, name: str) -> float:
        """The time that the agent's own requests to a resident variant take now, in milliseconds."""
        return (self.variants[name].mean_milliseconds + OVERHEAD_MILLISECONDS) * self.story.factor(self.now)

    def _serve(self, *, until: float) -> None:
        while self._waiting:
            arrived = self._waiting[0]
            begun = max(arrived, self._free_at)
            if begun >= until:
                return
            self._waiting.popleft()
            self._settle(begun)
            variant = self.variants[self.active]
            sigma = self._sigma[self.active]
            spread = math.exp(self._chance.gauss(0.0, sigma) - sigma * sigma / 2)
            slower = self.story.factor(begun) * (SERVING_SLOWER if self._loading is not None else 1.0)
            compute = (variant.mean_milliseconds + OVERHEAD_MILLISECONDS) * slower * spread / 1000
            self._free_at = begun + compute
            latency = 1000 * (self._free_at - arrived) + TRANSPORT_MILLISECONDS
            self.outcome.requests += 1
            self.outcome.slow += latency > self.objective
            self.outcome.accuracy_sum += variant.accuracy_percent
            self.outcome.latencies.append(latency)
            self._done.append((self._free_at, begun - arrived, compute))
            if self.story.onsets:
                self._answered.append((self._free_at, self.active))

    def _settle(self, now: float) -> None:
        """What is due by ``now``: a load that ends, a resident variant that takes over."""
        if self._loading is not None and now >= self._loading[1]:
            name, at, serves = self._loading
            self._loading = None
            self.resident.add(name)
            if serves:
                self._becomes = name, at
        if self._becomes is not None and now >= self._becomes[1]:
            self.active, self._becomes = self._becomes[0], None
            self.switched_at = now
            self.outcome.switches.append((now, self.active))

    def _observe(self) -> None:
        self._settle(self.now)
        found = []
        while self._done and self._done[0][0] <= self.now:
            found.append(self._done.popleft())
        count = max(1, len(found))
        queue, compute = 1000 * sum(row[1] for row in found) / count, 1000 * sum(row[2] for row in found) / count
        self.reading = Reading(
            seconds=TICK_SECONDS,
            requests=len(found),
            mean_compute_milliseconds=compute,
            mean_queue_milliseconds=queue,
            mean_total_milliseconds=queue + compute + (TRANSPORT_MILLISECONDS if found else 0.0),
            pending=len(self._waiting),
        )

    def _obey(self, command: Command) -> None:
        if self.is_loading or self._becomes is not None:
            return
        if command.serve is not None and command.serve != self.active:
            if command.serve in self.resident:
                self._becomes = command.serve, self.now + RESIDENT_SECONDS
            else:
                self._load(command.serve, serves=True)
        elif command.beside is not None:
            missing = [name for name in command.beside if name not in self.resident]
            if missing:
                self._load(missing[0], serves=False)
                return
        if command.beside is not None:
            kept = {self.active, command.serve or self.active, *command.beside}
            self.resident &= kept

    def _load(self, name: str, *, serves: bool) -> None:
        factor = self.story.factor(self.now)
        slower = factor * (LOAD_SLOWER if factor > 1.5 else 1.0)
        seconds = self.variants[name].load_milliseconds * slower / 1000
        self._loading = name, self.now + seconds, serves

    def _judge_onsets(self) -> None:
        switches = self.outcome.switches
        for onset in self.story.onsets:
            after = next((at for at, _ in switches if at > onset), None)
            if after is None or after > onset + 20:
                continue
            name = next((name for at, name in reversed(switches) if at <= onset), self._first)
            answers = [at for at, variant in self._answered if variant == name and onset <= at <= after + 2]
            if answers:
                self.outcome.left.append(max(answers) - onset)


def _sigma(variant: VariantProfile) -> float:
    """Sigma of the log-normal service time, from the profile's p95 / mean."""
    ratio = math.log(max(1.0, variant.p95_milliseconds / variant.mean_milliseconds))
    return 1.645 - math.sqrt(max(0.0, 1.645**2 - 2 * ratio))
