"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Endpoint = Annotated[
    str | None,
    typer.Option(help="Attach to the Triton at grpc://host:port instead of starting one.", show_default=False),
]
EndpointKeyFile = Annotated[
    Path | None, typer.Option(help="File with that Triton's key: name=secret.", show_default=False)
]
ModelDirectory = Annotated[
    Path | None, typer.Option(help="That Triton's model repository, as seen from here.", show_default=False)
]
Address = Annotated[str, typer.Option(help="Where the started Triton listens.")]
Port = Annotated[int, typer.Option(help="0 takes any free port.", min=0, max=65535)]
HttpPort = Annotated[
    int | None,
    typer.Option(
        help="Serve HTTP as well, at this port, through a gateway with bounds; 0 takes any free port.",
        show_default="no HTTP",
        min=0,
        max=65535,
    ),
]
MetricsPort = Annotated[int, typer.Option(help="Triton's metrics.", min=0, max=65535)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
