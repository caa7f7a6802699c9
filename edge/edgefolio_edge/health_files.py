"""Tell whoever runs Triton how it is, through files that its probes look for.

What is written stays: an agent that was killed says nothing new, so a Triton that serves goes on serving. Only what an
inference showed, or the lack of any answer, changes a file. Whoever starts Triton removes ``serving`` and ``restart``
first.
"""

from __future__ import annotations

from pathlib import Path

from edgefolio.contract.pod import HEALTH_VARIABLE, RESTART, SERVING, SYNCED
from edgefolio.files import writing


class Health:
    """The files in ``directory``; without one nothing is told. Cheap enough for every cycle."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory

    @property
    def is_told(self) -> bool:
        """Whether anybody listens."""
        return self._directory is not None

    @property
    def wants_restart(self) -> bool:
        """Whether a restart was asked for and has not come yet."""
        return self._directory is not None and (self._directory / RESTART).exists()

    def synced(self) -> None:
        """A variant is on disk, verified."""
        self._set(SYNCED, present=True)

    def serves(self) -> None:
        """The server answered an inference, verified."""
        self._set(RESTART, present=False)
        self._set(SERVING, present=True)

    def fails(self) -> None:
        """The server serves nothing, or does not answer."""
        self._set(SERVING, present=False)

    def condemn(self) -> None:
        """Only a restart helps."""
        self._set(SERVING, present=False)
        self._set(RESTART, present=True)

    def renewed(self) -> None:
        """Another server answers: the restart has come. It serves nothing yet."""
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
