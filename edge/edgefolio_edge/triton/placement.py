"""A variant as Triton serves it, and the result of a switch to it."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio.manifest import Manifest, Variant


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A variant of a revision, served or to be served."""

    manifest: Manifest
    variant: Variant

    @property
    def version(self) -> int:
        """The Triton version."""
        return self.manifest.version_of(self.variant)


@dataclass(frozen=True, kw_only=True)
class SwitchResult:
    """Result of a switch.

    ``cause`` is ``None`` if it succeeded. ``restored`` tells whether the previous variant serves again after a failure
    (``None``: there was none). ``unreachable``: the server is gone, so the variant is not to blame. ``stuck``: the load
    did not end in time and could not be ended; this Triton then takes no further load until it is restarted.
    ``damaged``: the local copy is, so the server is not to blame. ``shortage``: a resource of the machine has run out
    (shared memory, open files), so the variant is not to blame.
    """

    variant: str
    version: int
    cause: str | None
    load_milliseconds: float
    total_milliseconds: float
    restored: bool | None = None
    unreachable: bool = False
    stuck: bool = False
    damaged: bool = False
    shortage: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the variant serves and answered its probe."""
        return self.cause is None
