"""Name conflicts: names that a portfolio's objects need and somebody else's objects have, and when to try again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgefolio_operator.kube.objects import Object

_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 30.0


@dataclass(kw_only=True)
class _Conflict:
    message: str
    pause: float
    again_at: float


class NameConflicts:
    """The conflicts of one portfolio; each is tried again after a pause that grows."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[tuple[str, str], _Conflict] = {}

    @property
    def messages(self) -> tuple[str, ...]:
        """Each conflict as a sentence with its remedy."""
        return tuple(conflict.message for _, conflict in sorted(self._found.items()))

    def is_waiting(self, document: Object) -> bool:
        """Whether the name of ``document`` was found taken just now."""
        found = self._found.get(_key(document))
        return found is not None and self._clock() < found.again_at

    def add(self, document: Object, message: str) -> None:
        """The name of ``document`` is somebody else's."""
        before = self._found.get(_key(document))
        pause = _FIRST_PAUSE_SECONDS if before is None else min(2 * before.pause, _LONGEST_PAUSE_SECONDS)
        self._found[_key(document)] = _Conflict(message=message, pause=pause, again_at=self._clock() + pause)

    def clear(self, document: Object) -> None:
        """``document`` was written."""
        self._found.pop(_key(document), None)

    def keep_only(self, documents: Iterable[Object]) -> None:
        """Forget names that are no longer wanted."""
        wanted = {_key(document) for document in documents}
        self._found = {key: conflict for key, conflict in self._found.items() if key in wanted}


def _key(document: Object) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]
