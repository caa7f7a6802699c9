"""Pauses between watches: the first repetition is free, then they grow to the longest, until a watch lasts."""

from __future__ import annotations

from edgefolio.kubernetes.backoff import Backoff


class Watches:
    """Watches that last as long as the test says."""

    def __init__(self) -> None:
        self._now = 0.0
        self._backoff = Backoff(longest=15.0, clock=lambda: self._now)

    def pause_after(self, seconds: float, *, is_failure: bool = False) -> float:
        self._backoff.begin()
        self._now += seconds
        return self._backoff.next_pause(is_failure=is_failure)


def test_watches_that_end_at_once_are_asked_for_more_and_more_slowly() -> None:
    watches = Watches()
    pauses = [watches.pause_after(0.01) for _ in range(2000)]
    assert pauses[0] == 0
    for number, pause in enumerate(pauses[1:5]):
        assert min(2.0**number, 10.0) <= pause <= 15.0
    assert all(10.0 <= pause <= 15.0 for pause in pauses[5:])
    assert watches.pause_after(2.0) == 0, "agents ask for watches of two seconds"
    assert watches.pause_after(240.0) == 0


def test_a_failure_is_never_repeated_without_a_pause() -> None:
    watches = Watches()
    assert all(watches.pause_after(seconds, is_failure=True) >= 1 for seconds in (240.0, 0.0, 0.0, 20.0))
