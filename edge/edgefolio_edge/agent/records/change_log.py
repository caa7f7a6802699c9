"""Change log: decisions, synchronized revisions and errors are logged when they differ from the last ones."""

from __future__ import annotations

import traceback
from pathlib import Path

from edgefolio.decision.types import Decision
from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio.shared_memory import shared_memory_bytes
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.node_profiles import HeldProfile
from edgefolio_edge.models.sync_state import Synced


class ChangeLog:
    """Remembers what was logged last."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._decision: tuple[object, ...] | None = None
        self._synced: Synced | None = None
        self._error: str | None = None

    def decision(self, decision: Decision, *, active: str | None, dry_run: bool) -> None:
        """Log ``decision`` if it differs from the last one."""
        facts = (decision.action, decision.reason, decision.target, active, decision.objectives_met)
        if facts != self._decision:
            self._decision = facts
            self._reporter.decision(decision, active=active, dry_run=dry_run)

    def error(self, error: UserError) -> None:
        """Log ``error`` if it differs from the last one."""
        if str(error) != self._error:
            self._error = str(error)
            self._reporter.event("error", error.one_line())

    def fault(self, error: Exception) -> None:
        """Log a fault of the agent itself, with its place, if it differs from the last one."""
        text = f"{type(error).__name__}: {error}"
        if text != self._error:
            self._error = text
            places = traceback.extract_tb(error.__traceback__)
            where = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "unknown"
            message = f"An error in the agent itself; serving goes on: {text[:500]}"
            self._reporter.event("error", message, where=where)

    def waiting(self, error: UserError) -> None:
        """Log once why another's server cannot be used yet."""
        if str(error) != self._error:
            self._error = str(error)
            self._reporter.event("waiting", error.problem, endpoint=error.value)

    def bounded(self, manifest: Manifest, store: ModelStore) -> None:
        """Log that shared memory bounds the batches of a new revision."""
        largest = store.largest_batch(manifest)
        if store.shared_memory_bytes is None or largest >= manifest.signature.max_batch_size:
            return
        wanted = max(manifest.request_batch_size, 2 * largest)
        needed = -(-shared_memory_bytes(signature=manifest.signature, batch=wanted) // 2**20)
        self._reporter.event(
            "bounded",
            f"Requests of at most {largest} samples are served: the shared memory of "
            f"{store.shared_memory_bytes // 2**20} MiB holds those of two variants. For {wanted} samples "
            f"{needed} MiB are needed (in a cluster serving.managed.sharedMemory, else the size of /dev/shm).",
            largestBatch=largest,
        )

    def profile(self, held: HeldProfile | None) -> None:
        """Log which profile predictions rest on, and why another was refused."""
        if held is None:
            return
        if held.problem is not None:
            self._reporter.event("profile", f"A profile is not used: {held.problem}")
        self._reporter.event("profile", held.evidence, digest=held.digest)

    def synced(self, synced: Synced) -> None:
        """Log a repository change: a refused revision, a complete one, or why it cannot be read."""
        before = self._synced or Synced()
        self._synced = synced
        revision = None if synced.manifest is None else synced.manifest.revision
        if synced.refusal is not None and synced.refusal != before.refusal:
            self._reporter.event(
                "refused",
                synced.refusal_message,
                reason=synced.refusal.reason,
                revision=synced.refusal.revision,
                servedRevision=revision,
            )
        if synced.unreachable is not None and synced.unreachable != before.unreachable:
            self._reporter.event("unsynced", f"The repository cannot be followed: {synced.unreachable}")
        is_new = not before.complete or before.manifest is not synced.manifest
        if synced.complete and is_new:
            self._reporter.event(
                "revision",
                f"Revision {revision} is on disk, verified.",
                revision=revision,
                variants=len(synced.available),
            )
