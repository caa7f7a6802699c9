"""Ports of a server: free ones are found, and a taken one is reported before the server starts."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from edgefolio.contract.pod import GRPC_PORT, METRICS_PORT
from edgefolio.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where a server listens. 0 asks for any free port; without a port for it there is no HTTP."""

    http: int | None = None
    grpc: int = GRPC_PORT
    metrics: int = METRICS_PORT


def settle_ports(ports: Ports, *, address: str) -> Ports:
    """``ports`` with every 0 replaced by a free one.

    Raises :class:`UserError`, naming the option, for a port in use.
    """
    held: list[socket.socket] = []
    settled: dict[str, int] = {}
    try:
        for name in ("http", "grpc", "metrics"):
            wanted = getattr(ports, name)
            if wanted is None:
                continue
            endpoint = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            # A port whose last connections linger in TIME_WAIT is free; Triton sets this option too.
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.append(endpoint)
            try:
                endpoint.bind((address, wanted))
                endpoint.listen(1)
            except OSError as error:
                raise UserError(
                    f"the server cannot listen at {address} port {wanted} ({error.strerror or error}).",
                    field=f"--{name}-port",
                    value=wanted,
                    remedy="Stop what listens there, or choose another port; 0 takes any free one.",
                ) from error
            settled[name] = endpoint.getsockname()[1]
    finally:
        for endpoint in held:
            endpoint.close()
    return Ports(http=settled.get("http"), grpc=settled["grpc"], metrics=settled["metrics"])
