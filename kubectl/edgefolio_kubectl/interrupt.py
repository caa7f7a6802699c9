"""SIGINT handler that loses no Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def until_interrupted() -> Iterator[threading.Event]:
    """Ctrl-C ends the block at once, or at its next check of the event.

    Python drops a KeyboardInterrupt that is raised in a finalizer or a callback of garbage collection, so that the
    exception alone does not always end a program.
    """
    interrupted = threading.Event()

    def interrupt(*_: Any) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)
