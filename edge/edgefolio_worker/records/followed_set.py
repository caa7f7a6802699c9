"""The set file as a worker follows it: what stands in it now, and why that is no set for this worker."""

from __future__ import annotations

from pathlib import Path

from edgefolio_worker.records.set_file import LARGEST_BYTES, SetError, WorkerSet

__all__ = ["FollowedSet"]


class FollowedSet:
    """The set file at ``path`` for one worker of one plan."""

    def __init__(self, path: Path, *, model: str, plan_sha256: str, rank: int, workers: int) -> None:
        self._path = path
        self._wanted = (("model", model), ("plan", plan_sha256), ("rank", rank), ("workers", workers))
        self._signature: tuple[int, int, int] | None = (-1, -1, -1)
        #: The set; ``None`` if there is none for this worker, and then why: one word, and a sentence.
        self.found: WorkerSet | None = None
        self.reason = "set-missing"
        self.problem = "there is no set file"

    def look(self) -> bool:
        """Read the file if it is another one. Returns whether what it says changed."""
        signature = self._signed()
        if signature == self._signature:
            return False
        self._signature = signature
        before = (self.found, self.reason, self.problem)
        self._read(is_there=signature is not None)
        return before != (self.found, self.reason, self.problem)

    def _read(self, *, is_there: bool) -> None:
        self.found = None
        if not is_there:
            self.reason, self.problem = "set-missing", "there is no set file"
            return
        try:
            with self._path.open("rb") as stream:
                found = WorkerSet.from_bytes(stream.read(LARGEST_BYTES + 1))
        except (OSError, SetError) as error:
            self.reason, self.problem = "set-unreadable", str(error)
            return
        said = {
            "model": found.model,
            "plan": found.plan_sha256,
            "rank": found.rank,
            "workers": len(found.peers) + 1,
        }
        for name, wanted in self._wanted:
            if said[name] != wanted:
                self.reason = f"set-{name}"
                self.problem = f"its {name} is {said[name]}, this worker's is {wanted}"
                return
        self.found, self.reason, self.problem = found, "forming", ""

    def _signed(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
