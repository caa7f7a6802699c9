"""Command line of a Triton server: the start settings as its options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgefolio_edge.triton.client import AccessKey
from edgefolio_edge.triton.launcher.ports import Ports

LOOPBACK = "127.0.0.1"
#: Time that the server gives requests to finish when it stops.
EXIT_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Start settings of a server. ``threads`` are those of one model instance.

    In ``worker_folder`` workers of splits find the set that they belong to; ``None``: to none.
    """

    model_repository: Path
    ports: Ports = field(default_factory=Ports)
    address: str = LOOPBACK
    threads: int = 1
    die_with_parent: bool = True
    worker_folder: Path | None = None


def arguments(settings: ServerSettings, *, ports: Ports, backends: Path, shared_memory_prefix: str) -> list[str]:
    """The options that everybody on the machine may read."""
    options = {
        "model-repository": settings.model_repository,
        "backend-directory": backends,
        "model-control-mode": "explicit",
        # The strict form turns the whole server unready at each switch, and for good after a refused load.
        "strict-readiness": "false",
        # Clients of HTTP talk to the gateway, which bounds what reaches the server.
        "allow-http": "false",
        "grpc-address": settings.address,
        "grpc-port": ports.grpc,
        "metrics-address": settings.address,
        "metrics-port": ports.metrics,
        "allow-gpu-metrics": "false",
        "exit-timeout-secs": EXIT_SECONDS,
        "model-load-thread-count": 2,
        "pinned-memory-pool-byte-size": 0,
    }
    metrics = ("summary_latencies=true", "summary_quantiles=0.5:0.05,0.95:0.005,0.99:0.001")
    return [
        # Configurations are complete; trying a model to complete them costs a second at each load.
        "--disable-auto-complete-config",
        *(f"--{name}={value}" for name, value in options.items()),
        *(f"--metrics-config={entry}" for entry in metrics),
        # Prefix of our stubs' shared memory, which identifies remains of a crash as ours.
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
    ]


def secret_arguments(key: AccessKey) -> list[str]:
    """The options that hold ``key``: without it nobody loads or unloads a model."""
    return [f"--grpc-restricted-protocol={key.restriction()}"]
