"""Assembly of the agent of ``edgefolio run`` from its options."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from edgefolio.decision import decide, profiles_from_manifest
from edgefolio.decision.types import Observation, ServerState
from edgefolio.manifest import Manifest
from edgefolio.processor import this_processor
from edgefolio.repository import Repository
from edgefolio.repository.profiles import fitting_profile
from edgefolio.repository.signature import parsed_key
from edgefolio.repository.storage import checked_argument
from edgefolio.specification.loading import ignored_on_one_machine
from edgefolio.specification.validation.validation_errors import bytes_option
from edgefolio_edge.agent.loop import Agent
from edgefolio_edge.agent.options import AgentOptions, AgentOutputs
from edgefolio_edge.agent.portfolio_file import PortfolioFile
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.agent.records.metrics import AgentMetrics
from edgefolio_edge.agent.records.state_files import StateFile, default_state_directory
from edgefolio_edge.agent.triton_options import TritonOptions
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.node_profiles import NodeProfiles
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.process.directory_lock import only_writer_of_directory
from edgefolio_edge.process.open_files import raise_open_files_limit
from edgefolio_edge.process.signals import stop_on_signals
from edgefolio_edge.triton.launcher.server_record import recorded_server
from edgefolio_edge.triton.room import require_shared_memory, size_of_shared_memory


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of ``edgefolio run``."""

    file: Path
    repository: str | None
    triton: TritonOptions
    agent_metrics_port: int
    memory_limit: str | None
    state_directory: Path | None
    record: Path | None
    dry_run: bool
    as_json: bool
    allow_rollback: bool = False


def run_agent(options: RunOptions) -> None:
    """Run until a signal. Raises :class:`UserError`, with nothing left running."""
    raise_open_files_limit()
    portfolio = PortfolioFile(options.file)
    specification = portfolio.portfolio.spec
    given = options.repository
    repository_uri = checked_argument(given, field="--repository") if given else specification.repository.uri
    model = specification.serving.model_name
    pinned = specification.pinned_revision or None
    memory_limit = _memory_limit(options.memory_limit)
    reporter = Reporter(as_json=options.as_json)
    key = parsed_key(specification.repository.verification_key, field="spec.repository.verificationKey")
    # Another key trusts nothing of what was fetched without it.
    trusted = repository_uri if key is None else f"{repository_uri} signed by {key.text}"
    state_directory = (
        options.state_directory or default_state_directory(portfolio.portfolio.metadata.name, repository=trusted)
    ).absolute()
    for field in ignored_on_one_machine(portfolio.portfolio):
        reporter.event("note", f"{field} is for a cluster and is ignored here.")
    if os.geteuid() == 0 and options.triton.endpoint is None:
        reporter.event("note", "The agent runs as root, and so do Triton and its models: run it as a user of its own.")

    def open_repository() -> Repository:
        return Repository.open(repository_uri, verification_key=key)

    if options.dry_run and options.triton.endpoint is None:
        _log_first_decision(portfolio, open_repository(), model, pinned, state_directory, reporter)
        return
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        stack.enter_context(only_writer_of_directory(state_directory))
        store = ModelStore(
            state_directory,
            model=model,
            threads=specification.serving.threads,
            model_repository=options.triton.model_repository,
            shared_memory_bytes=size_of_shared_memory() if options.triton.endpoint is None else None,
        )
        synchronizer = Synchronizer(
            open_repository,
            store,
            pinned_revision=pinned,
            may_go_back=options.allow_rollback,
            node_profiles=NodeProfiles(store.manifests.directory, this_processor()),
        )
        if synchronizer.synced.manifest is None:
            # Nothing is on disk yet: an unreadable repository is an error now, later it is a condition.
            repository = open_repository()
            manifest = repository.manifest(model, pinned) if pinned else repository.current_manifest(model)[1]
        else:
            manifest = synchronizer.synced.manifest
        if options.triton.endpoint is None:
            _require_shared_memory(manifest, state_directory)
        metrics = AgentMetrics(model=model)
        port = metrics.serve(options.agent_metrics_port)
        stack.callback(metrics.close)
        host = stack.enter_context(
            options.triton.host(
                state_directory,
                models=store.model_repository,
                threads=specification.serving.threads,
                # An agent that is killed and started again finds its server still serving.
                die_with_parent=False,
                dry_run=options.dry_run,
            )
        )
        reporter.event("started", "The agent runs.", agentMetrics=f"127.0.0.1:{port}", stateDir=str(state_directory))
        agent = Agent(
            host,
            store,
            synchronizer,
            portfolio,
            options=AgentOptions(
                state_directory=state_directory,
                record=options.record,
                dry_run=options.dry_run,
                memory_limit_bytes=memory_limit,
            ),
            outputs=AgentOutputs(reporter=reporter, metrics=metrics),
        )
        agent.run(stop)
        reporter.event("stopping", "Stopping what was started.")


def _require_shared_memory(manifest: Manifest, state_directory: Path) -> None:
    """Raise :class:`UserError` if the server to start has too little of it; one that runs already has its own."""
    server = recorded_server(state_directory)
    if server is None or not server.is_alive():
        require_shared_memory(manifest)


def _log_first_decision(
    portfolio: PortfolioFile,
    repository: Repository,
    model: str,
    pinned: int | None,
    state_directory: Path,
    reporter: Reporter,
) -> None:
    """Log the first decision of an agent; starts and writes nothing."""
    sha256 = None
    if not pinned:
        pointer, _ = repository.current_manifest(model)
        pinned, sha256 = pointer.revision, pointer.manifest_sha256
    published = repository.published_manifest(model, pinned, sha256=sha256)
    fitting = fitting_profile(repository, published.manifest, this_processor(), manifest_sha256=published.sha256)
    state_file = StateFile(state_directory)
    state = state_file.read()
    decision, _ = decide(
        observation=Observation(active_variant=None, resident_variants=(), server=ServerState.SERVING),
        objectives=portfolio.objectives,
        profiles=profiles_from_manifest(
            published.manifest, measured=None if fitting.published is None else fitting.published.profile
        ),
        switching=portfolio.switching,
        state=state,
        now=state_file.clock.now(),
    )
    reporter.event("profile", fitting.choice.evidence)
    reporter.decision(replace(decision, profile=fitting.choice.evidence), active=None, dry_run=True)


def _memory_limit(quantity: str | None) -> int | None:
    if quantity is None:
        return None
    return bytes_option(quantity, field="--memory-limit", least=1)
