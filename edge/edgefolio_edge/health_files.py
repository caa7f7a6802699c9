"""Health files, tested by the probes of Triton's container.

The files outlive the agent: while it is down, Triton goes on serving. Only the result of an inference, or
the lack of any answer, changes a file. Whoever starts Triton removes ``serving`` and ``restart`` first.
"""

from __future__ import annotations

from pathlib import Path

from edgefolio.contract.pod import HEALTH_VARIABLE, RESTART, SERVING, SYNCED
from edgefolio.files import writing


class Health:
    """The files in ``directory``; ``None`` disables them. Cheap enough for every cycle."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory

    @property
    def is_enabled(self) -> bool:
        """Whether files are written."""
        return self._directory is not None

    @property
    def wants_restart(self) -> bool:
        """Whether a restart was requested and is still pending."""
        return self._directory is not None and (self._directory / RESTART).exists()

    def synced(self) -> None:
        """Note that a verified variant is on disk."""
        self._set(SYNCED, present=True)

    def serves(self) -> None:
        """Note a verified answer to an inference."""
        self._set(RESTART, present=False)
        self._set(SERVING, present=True)

    def fails(self) -> None:
        """Note that the server serves nothing, or does not answer."""
        self._set(SERVING, present=False)

    def condemn(self) -> None:
        """Request a restart of the server."""
        self._set(SERVING, present=False)
        self._set(RESTART, present=True)

    def renewed(self) -> None:
        """Note a restarted server, which serves nothing yet."""
        self._set(SERVING, present=False)
        self._set(RESTART, present=False)

    def _set(self, name: str, *, present: bool) -> None:
        if self._directory is None:
            return
        path = self._directory / name
        if path.exists() == present:
            return
        with writing(path, field=HEALTH_VARIABLE):
            if present:
                path.touch()
            else:
                path.unlink(missing_ok=True)
