"""Agents on one node that want memory which is there once: they wait for a turn, look again, and one of them has it."""

from __future__ import annotations

import random

from edgefolio_edge.agent.turns import LONGEST_SECONDS, Turn

#: An agent looks this often, and its load shows in the node's figure after this long.
CYCLE_SECONDS, LOAD_SECONDS = 1.0, 1.5


def loads_at_once(seed: int, *, agents: int) -> int:
    """How many of some agents that begin to want a standby in the same second load one; there is room for one."""
    randomness, now = random.Random(seed), 0.0
    turns = [Turn(clock=lambda: now, draw=randomness.uniform) for _ in range(agents)]
    begun: dict[int, float] = {}
    while now <= LONGEST_SECONDS + CYCLE_SECONDS:
        is_room = not any(now - since >= LOAD_SECONDS for since in begun.values())
        for number, turn in enumerate(turns):
            if number in begun:
                continue
            if not is_room:
                turn.forget()
            elif turn.has_come("small"):
                begun[number] = now
        now += CYCLE_SECONDS
    return len(begun)


def test_of_two_agents_one_takes_the_memory_and_the_other_sees_it() -> None:
    taken = [loads_at_once(seed, agents=2) for seed in range(400)]
    assert min(taken) == 1
    # Each looks at the memory right before it loads, and a load that fails takes nothing from what serves.
    assert sum(found > 1 for found in taken) < 0.15 * len(taken)


def test_without_turns_both_would_take_it() -> None:
    now = 0.0
    turns = [Turn(clock=lambda: now, draw=lambda least, _most: least) for _ in range(2)]
    assert all(turn.has_come("small") for turn in turns)


def test_a_turn_is_for_what_was_wanted_all_the_time() -> None:
    now = 0.0
    turn = Turn(clock=lambda: now, draw=lambda _least, _most: 10.0)
    assert not turn.has_come("small")
    now = 9.0
    assert not turn.has_come("smaller")
    now = 12.0
    assert not turn.has_come("small")
    now = 22.0
    assert turn.has_come("small")
    turn.forget()
    assert not turn.has_come("small")
