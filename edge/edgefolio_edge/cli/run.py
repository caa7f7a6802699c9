"""``edgefolio run``: the agent in its autonomous mode."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefolio_edge.cli import options


def run(
    file: Annotated[Path, typer.Option("--file", "-f", help="The ModelPortfolio.", show_default=False)],
    repository: Annotated[
        str | None, typer.Option(help="Read from here instead of spec.repository.uri.", show_default=False)
    ] = None,
    endpoint: options.Endpoint = None,
    endpoint_key_file: options.EndpointKeyFile = None,
    endpoint_metrics: Annotated[
        str | None, typer.Option(help="host:port of that Triton's metrics.", show_default=False)
    ] = None,
    model_directory: options.ModelDirectory = None,
    address: options.Address = "127.0.0.1",
    http_port: options.HttpPort = None,
    grpc_port: options.Port = 8001,
    metrics_port: options.MetricsPort = 8002,
    agent_metrics_port: Annotated[
        int, typer.Option(help="The agent's metrics; 0 takes any free port and says which.", min=0, max=65535)
    ] = 0,
    memory_limit: Annotated[
        str | None, typer.Option(help="What the server may use, as 512Mi; else its cgroup says.", show_default=False)
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="What must survive a restart, models included.", show_default="in ~/.local/state/edgefolio"),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write a trace for `edgefolio replay`.", show_default=False)
    ] = None,
    allow_rollback: Annotated[
        bool, typer.Option("--allow-rollback", help="Follow the repository back to an older revision, too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Serve a published portfolio and keep the variant that fits: sync, verify, observe, decide, switch.

    Starts a Triton on this machine (or attaches to a running one) and prints each decision that changes, with its
    reason and numbers. Changes of the objectives in the file are followed, and new revisions in the repository. Ctrl-C
    stops everything that was started.

    Example: edgefolio run -f examples/fashion-mnist.yaml --repository ./portfolios
    """
    from edgefolio_edge.agent.assembly import RunOptions, run_agent
    from edgefolio_edge.agent.triton_options import TritonOptions
    from edgefolio_edge.triton.launcher.ports import Ports

    run_agent(
        RunOptions(
            file=file,
            repository=repository,
            triton=TritonOptions(
                endpoint=endpoint,
                endpoint_key_file=endpoint_key_file,
                endpoint_metrics=endpoint_metrics,
                model_directory=model_directory,
                address=address,
                ports=Ports(http=http_port, grpc=grpc_port, metrics=metrics_port),
            ),
            agent_metrics_port=agent_metrics_port,
            memory_limit=memory_limit,
            state_directory=state_dir,
            record=record,
            dry_run=dry_run,
            as_json=as_json,
            allow_rollback=allow_rollback,
        )
    )
