"""``edgefolio serve``: fetch, verify and load one variant, or one worker's part of a split, until a signal."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgefolio.errors import UserError
from edgefolio.repository import Repository
from edgefolio.repository.storage import checked_argument
from edgefolio_edge.agent.records.change_log import ChangeLog
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.agent.split_serving import SplitServing, WorkerOptions
from edgefolio_edge.agent.triton_options import TritonOptions
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.variants import variant_named
from edgefolio_edge.process.open_files import raise_open_files_limit
from edgefolio_edge.process.signals import stop_on_signals
from edgefolio_edge.triton.host import Host
from edgefolio_edge.triton.placement import Placement
from edgefolio_edge.triton.room import require_shared_memory, size_of_shared_memory
from edgefolio_edge.triton.switcher import Switcher

#: Interval of the checks of server and backend.
WATCH_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of ``edgefolio serve``. ``worker`` is given for one worker of a split."""

    repository: str
    model: str
    revision: int | None
    variant: str | None
    triton: TritonOptions
    threads: int
    as_json: bool
    worker: WorkerOptions | None = None


def serve_variant(options: ServeOptions) -> None:
    """Serve until a signal. Raises :class:`UserError` or IntegrityError; then nothing is left running."""
    raise_open_files_limit()
    reporter = Reporter(as_json=options.as_json)
    repository = Repository.open(checked_argument(options.repository, field="--repository"))
    if options.revision is None:
        manifest = repository.current_manifest(options.model)[1]
    else:
        manifest = repository.manifest(options.model, options.revision)
    if options.triton.endpoint is None:
        require_shared_memory(manifest)
    elif options.worker is not None:
        raise UserError(
            "workers of a split run in a Triton that is started here.",
            field="--worker-set",
            value=options.worker.worker_set,
            remedy="Leave out --endpoint.",
        )
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefolio-serve-")))
        store = ModelStore(
            directory,
            model=options.model,
            threads=options.threads,
            model_repository=options.triton.model_repository,
            shared_memory_bytes=size_of_shared_memory() if options.triton.endpoint is None else None,
            worker_rank=None if options.worker is None else options.worker.rank,
        )
        ChangeLog(reporter).bounded(manifest, store)
        split: SplitServing | None = None
        if options.worker is None:
            names = options.variant
            variant = manifest.single_node[-1] if names is None else variant_named(manifest, names)
            store.fetch(repository, manifest, variant)
        else:
            split = SplitServing(
                options.worker,
                manifest=manifest,
                variant=options.variant,
                folder=directory / "worker",
                reporter=reporter,
            )
            variant = split.variant
            split.prepare(repository, store)
        store.write_configuration(manifest)
        host = stack.enter_context(
            options.triton.host(
                directory,
                models=store.model_repository,
                threads=options.threads,
                worker_folder=None if split is None else split.folder,
            )
        )
        control = host.endpoint.control()
        stack.callback(control.close)
        placement = Placement(manifest=manifest, variant=variant)
        switcher = Switcher(
            control,
            store,
            warm_up=not host.endpoint.has_our_backend,
            worker_status=(lambda _version: None) if split is None else split.status,
        )
        outcome = switcher.switch(placement)
        if not outcome.succeeded:
            raise UserError(
                f"Triton does not serve the variant: {outcome.cause}",
                field="--variant",
                value=variant.name,
                remedy="Run `edgefolio verify` on the repository, and look at what Triton says above.",
            )
        reporter.event(
            "serving",
            f"{options.model} is served by {variant.name}; Ctrl-C stops it.",
            model=options.model,
            variant=variant.name,
            version=placement.version,
            http=host.endpoint.http,
            grpc=host.endpoint.grpc,
            metrics=host.endpoint.metrics,
            answeredBy=switcher.answered_by,
            workerMetrics=None if split is None else split.serve_metrics(stack),
        )

        def follow() -> None:
            if split is not None:
                split.step(repository, store)

        _watch(host, switcher, placement, reporter, stop, follow=follow)
        reporter.event("stopping", "Stopping what was started.")


def _watch(
    host: Host,
    switcher: Switcher,
    placement: Placement,
    reporter: Reporter,
    stop: threading.Event,
    *,
    follow: Callable[[], None],
) -> None:
    while not stop.wait(WATCH_SECONDS):
        follow()
        if not host.is_alive():
            raise UserError(
                f"Triton died while it served. The end of its log: {host.log_tail() or 'none'}",
                field="triton",
                remedy="Start again; `edgefolio run` restarts a Triton that dies.",
            )
        if not host.has_gateway():
            reporter.event("gateway", "The HTTP gateway ended; it is started again.")
            host.restart_gateway()
        if host.endpoint.lacks_backend_of(placement.version) and switcher.canary(placement) is not None:
            reporter.event("dead", "The backend does not answer inference; it is repaired.")
            outcome = switcher.repair(placement)
            reporter.event("repaired" if outcome.succeeded else "failed", outcome.cause or "It answers again.")
