"""Drift detector: which of the operator's objects somebody changed since they were last known to be right.

It compares no fields: defaults and quantities are the API server's to judge. Applying an object anew changes nothing
where nothing differs: each change of an object is answered by one such write, each restart of the operator as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edgefolio_operator.kube.objects import Object

#: Pauses between two corrections of one object: whoever changes it again each time must not keep the operator busy.
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_CALM_SECONDS = 300.0

_Key = tuple[str, str, str]


@dataclass(kw_only=True)
class _Known:
    fingerprint: object
    written_at: float
    pause: float


class DriftDetector:
    """Remembers each object as it was when it was written last."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[_Key, _Known] = {}

    def is_due(self, thing: Object) -> bool:
        """Whether ``thing`` is to be written anew, since it is not as it was."""
        known = self._known.get(_key(thing))
        if known is None:
            return True
        return known.fingerprint != fingerprint(thing) and self._clock() - known.written_at >= known.pause

    def written(self, thing: Object) -> bool:
        """``thing`` is the answer to a write; returns whether it was changed by that, unless it was new."""
        key, now, found = _key(thing), self._clock(), fingerprint(thing)
        before = self._known.get(key)
        is_calm = before is None or now - before.written_at > _CALM_SECONDS
        pause = _FIRST_PAUSE_SECONDS if is_calm or before is None else min(2 * before.pause, _LONGEST_PAUSE_SECONDS)
        self._known[key] = _Known(fingerprint=found, written_at=now, pause=pause)
        return before is not None and before.fingerprint != found

    def forget(self, namespace: str, name: str) -> None:
        """What has this name is gone."""
        self._known = {key: known for key, known in self._known.items() if key[1:] != (namespace, name)}


def fingerprint(thing: Object) -> object:
    """Changes with what people can write of ``thing``; not with the status of an object that counts its generations."""
    metadata = thing["metadata"]
    if "generation" not in metadata:
        return metadata.get("uid"), metadata.get("resourceVersion")
    written = ("uid", "generation", "labels", "annotations", "ownerReferences")
    return tuple(repr(metadata.get(key)) for key in written)


def _key(thing: Object) -> _Key:
    metadata = thing["metadata"]
    return str(thing.get("kind")), str(metadata.get("namespace", "")), str(metadata["name"])
