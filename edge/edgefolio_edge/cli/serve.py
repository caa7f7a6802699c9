"""``edgefolio serve``: one variant on a real Triton."""

from __future__ import annotations

from typing import Annotated

import typer

from edgefolio_edge.cli import options


def serve(
    repository: Annotated[str, typer.Option(help="Directory or s3:// URI.", show_default=False)],
    model: Annotated[str, typer.Option(help="Name of the model in the repository.", show_default=False)],
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
    as_json: options.AsJson = False,
) -> None:
    """Serve one variant of a published portfolio with Triton, until Ctrl-C.

    Every byte is verified before Triton sees it. Standard Triton and KServe v2 clients work unchanged; what could
    change the server (load, unload, configuration, shared memory, trace, logging) is closed by a random key.

    Example: edgefolio serve --repository ./portfolios --model fashion --variant dense
    """
    from edgefolio_edge.agent.fixed_variant import ServeOptions, serve_variant
    from edgefolio_edge.agent.triton_options import TritonOptions
    from edgefolio_edge.triton.launcher.ports import Ports

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
        )
    )
