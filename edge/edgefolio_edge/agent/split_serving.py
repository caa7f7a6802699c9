"""One worker of a split under ``edgefolio serve``: its set followed from a YAML file, its word read and exported."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import Manifest, Variant
from edgefolio.repository import Repository
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.agent.records.metrics_server import MetricsServer
from edgefolio_edge.agent.records.split_metrics import SplitMetrics
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.split_folder import require_servable
from edgefolio_edge.models.variants import split_named
from edgefolio_edge.peers.set_document import FIELD, SetDocument
from edgefolio_worker.records import set_file
from edgefolio_worker.records.status_file import WorkerStatus, write_in_one_step


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Which worker of which set; ``identity`` is the folder of its key, ``metrics_port`` 0 any free one."""

    worker_set: Path
    rank: int
    identity: Path | None
    metrics_port: int | None

    @classmethod
    def of(
        cls, worker_set: Path | None, *, rank: int | None, identity: Path | None, metrics_port: int | None
    ) -> WorkerOptions | None:
        """The options where a set is given; ``None`` where not. Raises :class:`UserError` for half of them."""
        if worker_set is None:
            given = {"--rank": rank, "--identity": identity, "--worker-metrics-port": metrics_port}
            lone = next((name for name, value in given.items() if value is not None), None)
            if lone is not None:
                raise UserError("it belongs to a worker.", field=lone, remedy=f"Name the set, too: {FIELD} set.yaml.")
            return None
        if rank is None:
            raise UserError("a worker of a set has a rank.", field="--rank", remedy="Name one of the set's workers.")
        return cls(worker_set=worker_set, rank=rank, identity=identity, metrics_port=metrics_port)


class SplitServing:
    """The worker of ``options`` for one split; its set file and its status lie in ``folder``."""

    def __init__(
        self, options: WorkerOptions, *, manifest: Manifest, variant: str | None, folder: Path, reporter: Reporter
    ) -> None:
        """Raises :class:`UserError` if the set does not fit the split."""
        self.options, self.manifest, self.folder = options, manifest, folder
        self.variant: Variant = split_named(manifest, variant)
        self._reporter = reporter
        require_servable(manifest, self.variant, options.rank)
        self._seen = self._signature()
        self._document = SetDocument.read(options.worker_set)
        self._ordered = self._order(self._document)
        self._reason: str | None = ""

    def prepare(self, repository: Repository, store: ModelStore) -> None:
        """Fetch shard and fallback, and write the set file. Raises :class:`UserError` and IntegrityError."""
        store.fetch(repository, self.manifest, self._document.fallback_of(self.manifest))
        # The backend's own choice while no set says another.
        store.fetch(repository, self.manifest, self.smallest)
        store.fetch(repository, self.manifest, self.variant)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        write_in_one_step(self.folder / set_file.NAME, self._ordered.to_bytes())

    @property
    def smallest(self) -> Variant:
        """The variant of one node with the smallest file."""
        return min(self.manifest.single_node, key=lambda variant: (variant.size_bytes, variant.rank))

    def status(self, version: int | None = None) -> WorkerStatus | None:
        """The worker's last word."""
        return WorkerStatus.read(self.folder, version or self.manifest.version_of(self.variant))

    def serve_metrics(self, stack: contextlib.ExitStack) -> str | None:
        """Serve the worker's metrics as long as ``stack``. Returns where; ``None`` if nobody asked for them."""
        port = self.options.metrics_port
        if port is None:
            return None
        server = MetricsServer(SplitMetrics(self.status, model=self.manifest.model).registry())
        found = server.serve(port, field="--worker-metrics-port")
        stack.callback(server.close)
        return f"127.0.0.1:{found}"

    def step(self, repository: Repository, store: ModelStore) -> None:
        """Follow the YAML file, and report when the peers answer and when they do not."""
        self._follow(repository, store)
        found = self.status()
        if found is not None and found.reason != self._reason:
            self._reason = found.reason
            self._reporter.event(
                "linked" if found.is_linked else "unlinked",
                "The peers answer."
                if found.is_linked
                else f"The fallback answers: {found.reason}.{'' if found.problem is None else f' {found.problem}'}",
                reason=found.reason,
                set=found.set_number,
                rank=found.rank,
            )

    def _follow(self, repository: Repository, store: ModelStore) -> None:
        signature = self._signature()
        if signature == self._seen or signature is None:
            return
        self._seen = signature
        try:
            document = SetDocument.read(self.options.worker_set)
            ordered = self._order(document)
            store.fetch(repository, self.manifest, document.fallback_of(self.manifest))
            write_in_one_step(self.folder / set_file.NAME, ordered.to_bytes())
        except (UserError, IntegrityError, OSError) as error:
            self._reporter.event("error", f"The changed set is not used: {error}")
            return
        self._document, self._ordered = document, ordered
        self._reporter.event("set", "The set changed.", set=ordered.number, rank=ordered.rank)

    def _order(self, document: SetDocument) -> set_file.WorkerSet:
        options = self.options
        return document.for_rank(
            options.rank,
            path=options.worker_set,
            identity=options.identity,
            manifest=self.manifest,
            variant=self.variant,
        )

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            status = self.options.worker_set.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
