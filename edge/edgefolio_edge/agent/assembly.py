"""Put an agent together from what the command line says, and run it until it is told to stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgefolio.decision import decide, profiles_from_manifest
from edgefolio.decision.types import Observation, ServerState, State
from edgefolio.errors import UserError
from edgefolio.repository import Repository
from edgefolio.specification import ignored_on_one_machine
from edgefolio.specification.validation_errors import bytes_option
from edgefolio_edge.agent.event_log import Reporter
from edgefolio_edge.agent.loop import Agent
from edgefolio_edge.agent.metrics import AgentMetrics
from edgefolio_edge.agent.state_files import StateFile, default_state_directory
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.portfolio_file import FollowedPortfolio
from edgefolio_edge.process.directory_lock import only_writer_of_directory
from edgefolio_edge.process.signals import stop_on_signals
from edgefolio_edge.triton.host import Host, require_no_server_of_another_kind
from edgefolio_edge.triton.ports import Ports
from edgefolio_edge.triton.server import ServerSettings


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of ``edgefolio run``."""

    file: Path
    repository: str | None
    endpoint: str | None
    endpoint_key_file: Path | None
    endpoint_metrics: str | None
    model_directory: Path | None
    address: str
    http_port: int
    grpc_port: int
    metrics_port: int
    agent_metrics_port: int
    memory_limit: str | None
    state_directory: Path | None
    record: Path | None
    dry_run: bool
    as_json: bool


def run_agent(options: RunOptions) -> None:
    """Run until a signal. Raises :class:`UserError` for what a user must mend; then nothing is left running."""
    portfolio = FollowedPortfolio(options.file)
    specification = portfolio.portfolio.spec
    repository_uri = options.repository or specification.repository.uri
    model = specification.serving.model_name
    pinned = specification.pinned_revision or None
    memory_limit = _memory_limit(options.memory_limit)
    reporter = Reporter(as_json=options.as_json)
    state_directory = (
        options.state_directory or default_state_directory(portfolio.portfolio.metadata.name, repository=repository_uri)
    ).absolute()
    for field in ignored_on_one_machine(portfolio.portfolio):
        reporter.event("note", f"{field} is for a cluster and is ignored here.")
    if options.dry_run and options.endpoint is None:
        _say_first_decision(portfolio, repository_uri, model, pinned, state_directory, reporter)
        return

    def open_repository() -> Repository:
        return Repository.open(repository_uri)

    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        stack.enter_context(only_writer_of_directory(state_directory))
        store = ModelStore(
            state_directory,
            model=model,
            threads=specification.serving.threads,
            model_repository=options.model_directory.absolute() if options.model_directory else None,
        )
        synchronizer = Synchronizer(open_repository, store, pinned_revision=pinned)
        if synchronizer.synced.manifest is None:
            # Nothing is on disk yet: an unreadable repository is an error now, later it is a condition.
            repository = open_repository()
            if pinned:
                repository.manifest(model, pinned)
            else:
                repository.current_manifest(model)
        metrics = AgentMetrics(model=model)
        port = metrics.serve(options.agent_metrics_port)
        stack.callback(metrics.close)
        host = stack.enter_context(_host(options, store, state_directory, threads=specification.serving.threads))
        reporter.event("started", "The agent runs.", agentMetrics=f"127.0.0.1:{port}", stateDir=str(state_directory))
        agent = Agent(
            host,
            store,
            synchronizer,
            portfolio,
            reporter=reporter,
            metrics=metrics,
            state_directory=state_directory,
            record=options.record,
            dry_run=options.dry_run,
            memory_limit_bytes=memory_limit,
        )
        agent.run(stop)
        reporter.event("stopping", "Stopping what was started.")


@contextlib.contextmanager
def _host(options: RunOptions, store: ModelStore, state_directory: Path, *, threads: int) -> Iterator[Host]:
    if options.endpoint is None:
        settings = ServerSettings(
            model_repository=store.model_repository,
            ports=Ports(http=options.http_port, grpc=options.grpc_port, metrics=options.metrics_port),
            address=options.address,
            threads=threads,
            # An agent that is killed and started again finds its server still serving.
            die_with_parent=False,
        )
        with Host.own(settings, state_directory) as host:
            yield host
        return
    require_no_server_of_another_kind(state_directory)
    if options.model_directory is None and not options.dry_run:
        raise UserError(
            "the agent must know where that Triton reads its models.",
            field="--model-directory",
            remedy="Name the directory that the Triton was started with as --model-repository, as seen from here.",
        )
    with Host.attached(options.endpoint, key_file=options.endpoint_key_file, metrics=options.endpoint_metrics) as host:
        yield host


def _say_first_decision(
    portfolio: FollowedPortfolio,
    repository_uri: str,
    model: str,
    pinned: int | None,
    state_directory: Path,
    reporter: Reporter,
) -> None:
    """What an agent would serve first; nothing is started, nothing is written."""
    repository = Repository.open(repository_uri)
    manifest = repository.manifest(model, pinned) if pinned else repository.current_manifest(model)[1]
    decision, _ = decide(
        observation=Observation(active_variant=None, resident_variants=(), server=ServerState.SERVING),
        objectives=portfolio.objectives,
        profiles=profiles_from_manifest(manifest),
        switching=portfolio.switching,
        state=StateFile(state_directory).read() if state_directory.is_dir() else State(),
        now=time.time(),
    )
    reporter.decision(decision, active=None, dry_run=True)


def _memory_limit(quantity: str | None) -> int | None:
    if quantity is None:
        return None
    return bytes_option(quantity, field="--memory-limit", least=1)
