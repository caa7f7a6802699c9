"""Ctrl-C ends a watch wherever it arrives."""

from __future__ import annotations

import os
import signal
import time
import warnings

import pytest

from edgefolio_kubectl.interrupt import until_interrupted


def test_it_ends_what_waits() -> None:
    before = signal.getsignal(signal.SIGINT)
    began = time.monotonic()
    with until_interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    assert time.monotonic() - began < 5
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_a_finalizer_swallows_is_seen_at_the_next_look() -> None:
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    with warnings.catch_warnings(), until_interrupted() as interrupted:
        warnings.simplefilter("ignore")
        assert not interrupted.is_set()
        thing = Finalized()
        del thing
        # Python has forgotten the exception; the event has not.
        assert interrupted.wait(0)


def test_other_errors_leave_the_block() -> None:
    with pytest.raises(ValueError, match="other"), until_interrupted():
        raise ValueError("other")
