"""``edgefolio serve``: one variant on a real Triton, or one worker of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefolio.errors import UserError
from edgefolio_edge.cli import options


def serve(
    repository: Annotated[str | None, typer.Option(help="Directory or s3:// URI.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model in the repository.", show_default=False)] = None,
    revision: Annotated[
        int | None, typer.Option(help="A published revision.", show_default="the current one", min=1)
    ] = None,
    variant: Annotated[str | None, typer.Option(help="A variant.", show_default="the most accurate one")] = None,
    endpoint: options.Endpoint = None,
    endpoint_key_file: options.EndpointKeyFile = None,
    model_directory: options.ModelDirectory = None,
    address: options.Address = "127.0.0.1",
    http_port: options.HttpPort = None,
    grpc_port: options.Port = 8001,
    metrics_port: options.MetricsPort = 8002,
    threads: Annotated[int, typer.Option(help="Threads of the model.", min=1, max=256)] = 1,
    worker_set: Annotated[
        Path | None,
        typer.Option(help="Serve a split, as one of the workers in this file.", show_default=False),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Which of the workers this one is.", show_default=False, min=0, max=7)
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(help="Folder with this worker's key and certificate.", show_default=False)
    ] = None,
    worker_metrics_port: Annotated[
        int | None,
        typer.Option(help="The worker's metrics; 0 takes any free port.", show_default="no metrics", min=0, max=65535),
    ] = None,
    make_identity: Annotated[
        Path | None,
        typer.Option(help="Make a worker's key and certificate in this folder, and serve nothing.", show_default=False),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Serve one variant of a published portfolio with Triton, until Ctrl-C.

    Every byte is verified before Triton sees it. Standard Triton and KServe v2 clients work unchanged; what could
    change the server (load, unload, configuration, shared memory, trace, logging) is closed by a random key.

    With --worker-set it serves a split together with others: docs/split.md.

    Example: edgefolio serve --repository ./portfolios --model fashion --variant dense
    """
    from edgefolio_edge.agent.fixed_variant import ServeOptions, serve_variant
    from edgefolio_edge.agent.split_serving import WorkerOptions
    from edgefolio_edge.agent.triton_options import TritonOptions
    from edgefolio_edge.peers.identity import make_identity as make
    from edgefolio_edge.triton.launcher.ports import Ports

    if make_identity is not None:
        typer.echo(f"{make(make_identity)}  {make_identity / 'certificate.pem'}")
        return
    for name, value in (("--repository", repository), ("--model", model)):
        if value is None:
            raise UserError("it is needed to serve a variant.", field=name, remedy="See: edgefolio serve --help")
    assert repository is not None
    assert model is not None
    serve_variant(
        ServeOptions(
            repository=repository,
            model=model,
            revision=revision,
            variant=variant,
            triton=TritonOptions(
                endpoint=endpoint,
                endpoint_key_file=endpoint_key_file,
                model_directory=model_directory,
                address=address,
                ports=Ports(http=http_port, grpc=grpc_port, metrics=metrics_port),
            ),
            threads=threads,
            as_json=as_json,
            worker=WorkerOptions.of(worker_set, rank=rank, identity=identity, metrics_port=worker_metrics_port),
        )
    )
