"""Ctrl-C that is never lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def until_interrupted() -> Iterator[threading.Event]:
    """Ctrl-C ends the block, at once as a rule, and at the latest where the block looks at the event that is given.

    Python raises KeyboardInterrupt wherever it happens to be, and forgets it in a finalizer or a callback of garbage
    collection: a program that waits for the exception alone sometimes goes on.
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
