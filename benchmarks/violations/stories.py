"""Stories in virtual time: arrivals, how slow the node is, and its memory; generated from seeds, or of a file."""

from __future__ import annotations

import hashlib
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Minutes 82 to 103 of the day of requests that the authors of InfAdapter used.
STRETCH = (4_920, 6_180)


@dataclass(frozen=True, kw_only=True)
class Story:
    """``arrivals`` in seconds from the start; ``factor`` and ``has_room`` are functions of these seconds.

    ``has_room`` says whether the node has memory for a second variant. ``onsets`` are when it becomes three times
    slower or more.
    """

    name: str
    seconds: float
    arrivals: Sequence[float]
    factor: Callable[[float], float]
    has_room: Callable[[float], bool] = lambda _: True
    onsets: tuple[float, ...] = ()


def poisson(rate: Callable[[float], float], *, highest: float, seconds: float, chance: random.Random) -> list[float]:
    """Arrivals at ``rate`` requests per second, by thinning."""
    found, now = [], 0.0
    while (now := now + chance.expovariate(highest)) < seconds:
        if chance.random() < rate(now) / highest:
            found.append(now)
    return found


def stepwise(changes: Sequence[tuple[float, float]], *, start: float = 1.0) -> Callable[[float], float]:
    """A function that has each value from its second on; ``start`` before the first."""
    times = [at for at, _ in changes]
    values = [start, *(value for _, value in changes)]
    return lambda seconds: values[bisect_right(times, seconds)]


def generated(name: str, seed: int) -> Story:
    """The story called ``name``."""
    chance = random.Random(f"{name} {seed}")
    return _GENERATORS[name](name, chance)


def from_file(path: Path, seed: int, *, rate: float, stretch: tuple[int, int] = STRETCH) -> Story:
    """A story with the requests of ``path`` (one count a second and line), scaled to ``rate`` a second on average.

    A neighbour makes the node three times slower for half a minute every three minutes.
    """
    counts = [int(line) for line in path.read_text().split()][slice(*stretch)]
    chance = random.Random(f"file {seed}")
    scale = rate * len(counts) / sum(counts)
    arrivals: list[float] = []
    for second, count in enumerate(counts):
        wanted = count * scale
        number = int(wanted) + (chance.random() < wanted - int(wanted))
        arrivals.extend(sorted(second + chance.random() for _ in range(number)))
    changes = [(at + shift, value) for at in range(60, len(counts), 180) for shift, value in ((0, 3.0), (30, 1.0))]
    onsets = tuple(at for at, value in changes if value > 1)
    return Story(name="file", seconds=float(len(counts)), arrivals=arrivals, factor=stepwise(changes), onsets=onsets)


def sha256_of(path: Path) -> str:
    """sha256 of a trace."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _diurnal(name: str, chance: random.Random) -> Story:
    """A day in 40 minutes: 3 requests a second at night, 34 at noon."""
    seconds = 2400.0
    arrivals = poisson(
        lambda now: 18.5 - 15.5 * math.cos(2 * math.pi * now / seconds), highest=34, seconds=seconds, chance=chance
    )
    return Story(name=name, seconds=seconds, arrivals=arrivals, factor=lambda _: 1.0)


def _bursts(name: str, chance: random.Random) -> Story:
    """10 requests a second, and 45 for some 15 s every two minutes."""
    seconds, changes, now = 1800.0, [], 30.0
    while now < seconds:
        length = chance.uniform(8, 25)
        changes += [(now, 45.0), (now + length, 10.0)]
        now += length + chance.uniform(60, 150)
    rate = stepwise(changes, start=10.0)
    return Story(
        name=name,
        seconds=seconds,
        arrivals=poisson(rate, highest=45, seconds=seconds, chance=chance),
        factor=lambda _: 1.0,
    )


def _neighbours(name: str, chance: random.Random) -> Story:
    """12 requests a second; neighbours make the node 3 to 3.5 times slower for 20 to 90 s, every two to six minutes."""
    seconds, changes, now = 3600.0, [], 90.0
    while now < seconds:
        length = chance.uniform(20, 90)
        changes += [(now, chance.uniform(3, 3.5)), (now + length, 1.0)]
        now += length + chance.uniform(120, 360)
    return _slowed(name, chance, seconds=seconds, changes=changes)


def _ramp(name: str, chance: random.Random) -> Story:
    """12 requests a second on a node that becomes 3.5 times slower in five minutes, and quick again in five."""
    seconds = 1500.0
    changes = [(float(at), 1 + 2.5 * max(0.0, 1 - abs(at - 750) / 300)) for at in range(0, 1500, 2)]
    return _slowed(name, chance, seconds=seconds, changes=changes, onsets=False)


def _flapping(name: str, chance: random.Random) -> Story:
    """12 requests a second; a neighbour that makes the node three times slower every other 20 s."""
    seconds = 1800.0
    changes = [(at + shift, value) for at in range(60, 1800, 40) for shift, value in ((0.0, 3.0), (20.0, 1.0))]
    return _slowed(name, chance, seconds=seconds, changes=changes)


def _squeezes(name: str, chance: random.Random) -> Story:
    """12 requests a second; for five minutes of ten there is room for one variant alone; neighbours come and go."""
    seconds = 2400.0
    changes = [(at + shift, value) for at in range(120, 2400, 200) for shift, value in ((0.0, 3.0), (50.0, 1.0))]
    return _slowed(name, chance, seconds=seconds, changes=changes, has_room=lambda now: now % 600 < 300)


def _onsets(name: str, chance: random.Random) -> Story:
    """12 requests a second; every ten minutes a neighbour makes the node 3 to 3.5 times slower for 40 s."""
    seconds = 24_000.0
    changes: list[tuple[float, float]] = []
    for at in range(400, 24_000, 600):
        begin = at + chance.random()
        changes += [(begin, chance.uniform(3, 3.5)), (begin + 40, 1.0)]
    return _slowed(name, chance, seconds=seconds, changes=changes)


def _steady(name: str, chance: random.Random) -> Story:
    """Three hours of 8 requests a second, with bursts and short slownesses that leave p95 inside the objective."""
    seconds, changes, now = 10_800.0, [], 5.0
    while now < seconds:
        length = chance.uniform(0.1, 0.4)
        changes += [(now, chance.uniform(1.1, 1.6)), (now + length, chance.uniform(0.9, 1.1))]
        now += length + chance.uniform(2, 10)
    return _slowed(name, chance, seconds=seconds, changes=changes, onsets=False, rate=8.0)


def _slowed(
    name: str,
    chance: random.Random,
    *,
    seconds: float,
    changes: Sequence[tuple[float, float]],
    onsets: bool = True,
    rate: float = 12.0,
    has_room: Callable[[float], bool] = lambda _: True,
) -> Story:
    return Story(
        name=name,
        seconds=seconds,
        arrivals=poisson(lambda _: rate, highest=rate, seconds=seconds, chance=chance),
        factor=stepwise(changes),
        has_room=has_room,
        onsets=tuple(at for at, value in changes if value >= 3 and at < seconds) if onsets else (),
    )


_GENERATORS: dict[str, Callable[[str, random.Random], Story]] = {
    "diurnal": _diurnal,
    "bursts": _bursts,
    "neighbours": _neighbours,
    "ramp": _ramp,
    "flapping": _flapping,
    "squeezes": _squeezes,
    "onsets": _onsets,
    "steady": _steady,
}
NAMES = tuple(_GENERATORS)
DESCRIPTIONS = {name: (maker.__doc__ or "").strip() for name, maker in _GENERATORS.items()}
