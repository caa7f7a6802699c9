"""``edgefolio serve``: one variant on a real Triton."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    repository: Annotated[str, typer.Option(help="Directory or s3:// URI.", show_default=False)],
    model: Annotated[str, typer.Option(help="Name of the model in the repository.", show_default=False)],
    revision: Annotated[
        int | None, typer.Option(help="A published revision.", show_default="the current one", min=1)
    ] = None,
    variant: Annotated[str | None, typer.Option(help="A variant.", show_default="the most accurate one")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Attach to the Triton at grpc://host:port instead of starting one.", show_default=False),
    ] = None,
    endpoint_key_file: Annotated[
        Path | None, typer.Option(help="File with that Triton's key: name=secret.", show_default=False)
    ] = None,
    model_directory: Annotated[
        Path | None,
        typer.Option(help="That Triton's model repository, as seen from here.", show_default=False),
    ] = None,
    address: Annotated[str, typer.Option(help="Where the started Triton listens.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="0 takes any free port.", min=0, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(help="0 takes any free port.", min=0, max=65535)] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Triton's metrics.", min=0, max=65535)] = 8002,
    threads: Annotated[int, typer.Option(help="Threads of the model.", min=1, max=256)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Serve one variant of a published portfolio with Triton, until Ctrl-C.

    Every byte is verified before Triton sees it. Standard Triton and KServe v2 clients work unchanged; what could
    change the server (load, unload, configuration, shared memory, trace, logging) is closed by a random key.

    Example: edgefolio serve --repository ./portfolios --model fashion --variant dense
    """
    from edgefolio_edge.agent.fixed_variant import ServeOptions, serve_variant

    serve_variant(
        ServeOptions(
            repository=repository,
            model=model,
            revision=revision,
            variant=variant,
            endpoint=endpoint,
            endpoint_key_file=endpoint_key_file,
            model_directory=model_directory,
            address=address,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            threads=threads,
            as_json=as_json,
        )
    )
