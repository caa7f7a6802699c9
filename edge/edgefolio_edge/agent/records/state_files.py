"""State files of an agent: the core's state, the status for people, the trace for a replay."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import platformdirs

from edgefolio.decision import state_from_json, state_to_json
from edgefolio.decision.recording.traces import cycle_line, failed_line, header_line, switched_line
from edgefolio.decision.types import Decision, Objectives, Observation, State, VariantProfile
from edgefolio.files import write_durably, writing
from edgefolio.specification.serving import Switching
from edgefolio_edge.process.steady_clock import SteadyClock
from edgefolio_edge.process.stored_json import damaged, read_object, remove_partial_files

STATE_FILE = "decision.json"
STATUS_FILE = "status.json"
#: Estimates on disk may be this much older than in memory; changes by a switch are written at once.
WRITE_SECONDS = 5.0


class StateFile:
    """The core's state on disk, replaced atomically, and the clock of its times."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STATE_FILE
        self._written: str | None = None
        self._written_at = float("-inf")
        #: The clock of the state's times; after :meth:`read` it goes on from the one that wrote them.
        self.clock = SteadyClock()
        remove_partial_files(directory, STATE_FILE)

    def read(self) -> State:
        """The state as last written; a fresh one if there is none or it cannot be read."""
        document = read_object(self._path)
        if document is None:
            return State()
        self.clock = SteadyClock(document.get("clock"))
        try:
            return state_from_json(json.dumps(document))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            damaged(self._path, error)
            return State()

    def write(self, state: State, *, now: bool) -> None:
        """Write ``state`` if ``now``, or if the last write is :data:`WRITE_SECONDS` ago."""
        if not now and time.monotonic() - self._written_at < WRITE_SECONDS:
            return
        text = state_to_json(state)
        self._written_at = time.monotonic()
        if text != self._written:
            # An agent of an earlier version ignores the clock.
            document = {**json.loads(text), "clock": self.clock.reading()}
            write_durably(self._path, json.dumps(document, sort_keys=True).encode(), field="--state-dir")
            self._written = text


class StatusFile:
    """Status of the endpoint in the state directory, for people."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STATUS_FILE
        self._written: str | None = None

    def write(self, status: dict[str, Any]) -> None:
        """Write ``status`` if it changed. It is rebuilt at each start, so it need not survive a power cut."""
        text = json.dumps(status, indent=2, sort_keys=True, default=str) + "\n"
        if text == self._written:
            return
        temporary = self._path.with_suffix(".tmp")
        with writing(self._path, field="--state-dir"):
            temporary.write_text(text)
            temporary.replace(self._path)
        self._written = text

    def remove(self) -> None:
        """Remove the file when nothing is served any more."""
        with contextlib.suppress(OSError):
            self._path.unlink()


class Recorder:
    """Trace recorder for ``edgefolio replay``. A new revision has other profiles, so it begins a new file."""

    def __init__(self, path: Path | None) -> None:
        """Raises :class:`UserError` if ``path`` cannot be written."""
        self._path = path
        if path is not None:
            with writing(path, field="--record"):
                path.write_text("")
        self._begun: tuple[VariantProfile, ...] | None = None
        self._switching: Switching | None = None
        self._files = 0
        self._objectives: Objectives | None = None
        self._current = path

    def cycle(
        self,
        *,
        profiles: tuple[VariantProfile, ...],
        switching: Switching,
        before: State,
        now: float,
        observation: Observation,
        objectives: Objectives,
        decision: Decision,
        note: str,
    ) -> None:
        """Record one cycle; ``before`` is the state that the decision started from."""
        if self._path is None:
            return
        if profiles != self._begun or switching != self._switching:
            self._begin(header_line(profiles=profiles, switching=switching, state=before, note=note))
            self._begun, self._switching, self._objectives = profiles, switching, None
        changed = objectives if objectives != self._objectives else None
        self._objectives = objectives
        self._append(cycle_line(now=now, observation=observation, objectives=changed, decision=decision))

    def outcome(self, *, now: float, variant: str, cause: str | None) -> None:
        """Record how a switch ended."""
        if self._path is None or self._begun is None:
            return
        line = switched_line(now=now, variant=variant)
        self._append(line if cause is None else failed_line(now=now, variant=variant, cause=cause))

    def _begin(self, header: str) -> None:
        assert self._path is not None
        self._files += 1
        part = "" if self._files == 1 else f"-{self._files}"
        self._current = self._path.with_name(f"{self._path.stem}{part}{self._path.suffix}")
        self._write(header, mode="w")

    def _append(self, line: str) -> None:
        self._write(line, mode="a")

    def _write(self, text: str, *, mode: str) -> None:
        assert self._current is not None
        with writing(self._current, field="--record"), self._current.open(mode, encoding="utf-8") as stream:
            stream.write(text)


def default_state_directory(name: str, *, repository: str) -> Path:
    """``$XDG_STATE_HOME/edgefolio/<name>-<digest of the repository>``: one for each portfolio and repository."""
    return platformdirs.user_state_path("edgefolio") / f"{name}-{hashlib.sha256(repository.encode()).hexdigest()[:8]}"
