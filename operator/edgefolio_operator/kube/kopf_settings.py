"""What kopf need not remember: this operator's handlers look at objects as they are, and compare nothing."""

from __future__ import annotations

from typing import Any

import kopf


class NothingToCompare(kopf.AnnotationsDiffBaseStorage):  # type: ignore[misc]
    """Spares kopf the copies of every object at every event, from which it would find out what has changed.

    They were more than half of the operator's work where many endpoints report. Handlers that are told of changes alone
    (``kopf.on.create``, ``update``, ``field``) would never be called with this.
    """

    def fetch(self, **_: Any) -> None:
        """The object as it was when it was last handled: not known."""

    def build(self, **_: Any) -> dict[str, Any]:
        """The part of the object that is compared: none."""
        return {}
