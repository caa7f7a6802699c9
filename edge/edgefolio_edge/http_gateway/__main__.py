"""The gateway as a process: ``python -m edgefolio_edge.http_gateway``. It ends with the server that it stands for."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
from typing import BinaryIO

from aiohttp import web

from edgefolio_edge.http_gateway.application import Gateway
from edgefolio_edge.http_gateway.connections import BoundedConnections, most_connections
from edgefolio_edge.http_gateway.limits import LIMITS, Limits
from edgefolio_edge.process.open_files import raise_open_files_limit
from edgefolio_edge.process.steady_clock import boot_id
from edgefolio_edge.triton.processes import ProcessIdentity

_WATCH_SECONDS = 0.25
_ACCEPTED_AT_ONCE = 32
#: Requests under way get this long once it is told to end.
SHUTDOWN_SECONDS = 5.0
#: So long is read on from a client whose request is refused.
LINGERING_SECONDS = 1.0


def main() -> None:
    """Serve until SIGTERM or the server's end."""
    parser = argparse.ArgumentParser(prog="python -m edgefolio_edge.http_gateway", description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc", required=True, help="host:port of the server's gRPC service")
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--server-ticks", type=int, required=True, help="its start, in clock ticks since boot")
    parser.add_argument("--ready-descriptor", type=int, required=True, help="gets a byte once it listens")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    raise_open_files_limit()
    # Whatever a client makes it take, the machine's memory is not at stake.
    resource.setrlimit(resource.RLIMIT_AS, (LIMITS.memory_bytes, LIMITS.memory_bytes))
    server = ProcessIdentity(pid=options.server_pid, ticks=options.server_ticks, boot=boot_id())
    with os.fdopen(options.ready_descriptor, "wb", buffering=0) as ready:
        asyncio.run(_serve(options.address, options.port, options.grpc, server, ready, LIMITS))


async def _serve(address: str, port: int, grpc: str, server: ProcessIdentity, ready: BinaryIO, limits: Limits) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    gateway = Gateway(grpc, limits)
    runner = web.AppRunner(
        gateway.application(),
        access_log=None,
        keepalive_timeout=limits.idle_seconds,
        shutdown_timeout=SHUTDOWN_SECONDS,
        # A client reads the answer only once its own request is written.
        lingering_time=LINGERING_SECONDS,
    )
    await runner.setup()
    try:
        assert runner.server is not None
        factory = BoundedConnections(runner.server, gateway.asking, most=most_connections(limits.connections))
        listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        # The loop takes as many in one turn; the kernel may hold more of them until then.
        listener = await asyncio.get_running_loop().create_server(factory, sock=listening, backlog=_ACCEPTED_AT_ONCE)
        listening.listen(limits.connections)
        ready.write(b"r")
        while server.is_alive() and not told.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), timeout=_WATCH_SECONDS)
        listener.close()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
