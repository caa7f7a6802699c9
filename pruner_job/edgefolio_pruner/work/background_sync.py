"""Background thread that keeps a work directory's copy in the object store up to date."""

from __future__ import annotations

import logging
import math
import threading
import time
from types import TracebackType

from edgefolio.errors import EdgefolioError
from edgefolio.repository.remote.calls import TransferStopped, interruptible
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.work.mirror import SupersededError, WorkMirror

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_COPIES = 10.0
#: A pod that is told to end has 30 s: a store that hangs must leave it time to say why it ended.
_LAST_COPY_SECONDS = 20.0
#: Profiling must not share the CPU with a transfer.
_UNDISTURBED_STAGE = "profile"


class BackgroundSync:
    """A context in which ``remote`` is brought up to date every few seconds, and once more at the end or a failure.

    A store that does not answer in between delays nothing; more is then lost if the node is lost, too. After a failure
    it is waited for a while only.
    """

    def __init__(self, remote: WorkMirror, *, seconds: float = SECONDS_BETWEEN_COPIES) -> None:
        self._remote, self._seconds = remote, seconds
        self._busy = threading.Lock()
        self._ending = threading.Event()
        self._superseded: SupersededError | None = None
        self._stage = ""
        self._thread = threading.Thread(target=self._follow, name="work-directory", daemon=True)

    def __enter__(self) -> BackgroundSync:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        if self._superseded is not None:
            return
        until = time.monotonic() + (math.inf if error is None else _LAST_COPY_SECONDS)
        try:
            with interruptible(lambda: time.monotonic() < until):
                self.send(everything=True)
        except EdgefolioError as problem:
            if error is None:
                raise
            # The work's own error matters more.
            logger.warning("the work directory was not copied at the end: %s", problem)

    def send(self, *, everything: bool = False) -> None:
        """Copy now. Raises :class:`SupersededError`, and UserError if the store cannot be reached."""
        with self._busy:
            self._check()
            try:
                self._remote.send(everything=everything)
            except SupersededError as error:
                self._superseded = error
                raise

    def watching(self, progress: Progress) -> Progress:
        """``progress`` that also ends the work when another run has taken it over."""

        def report(*, stage: str, fraction: float, message: str) -> None:
            self._check()
            if stage != self._stage:
                self._stage = stage
                if stage == _UNDISTURBED_STAGE:
                    self._try()
            progress(stage=stage, fraction=fraction, message=message)

        return report

    def _check(self) -> None:
        if self._superseded is not None:
            raise self._superseded

    def _follow(self) -> None:
        while not self._ending.wait(self._seconds):
            if self._stage != _UNDISTURBED_STAGE:
                self._try()
            if self._superseded is not None:
                return

    def _try(self) -> None:
        try:
            # The copy at the end takes over what this one has not sent.
            with interruptible(lambda: not self._ending.is_set()):
                self.send()
        except TransferStopped:
            return
        except SupersededError:
            logger.warning("another pod has taken over this work")
        except Exception as error:  # a failed copy must not end the work; the next one may succeed
            logger.warning("the work directory was not copied: %s: %s", type(error).__name__, error)
