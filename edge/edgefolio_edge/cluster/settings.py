"""What the agent's pod tells it: environment variables, as the operator's pod template sets them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgefolio.errors import UserError

_CLAIM_URI = re.compile(r"^pvc://([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)(/.*)?$")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """| variable | meaning |
    |---|---|
    | ``POD_NAME``, ``POD_NAMESPACE`` | its own pod, whose ModelEndpoint it obeys |
    | ``EDGEFOLIO_MODELS`` | Triton's model repository, shared with it |
    | ``EDGEFOLIO_STATE`` | its own directory: orders, history, manifests |
    | ``EDGEFOLIO_HEALTH`` | where Triton's probes look for files; absent: nothing is told |
    | ``EDGEFOLIO_CLAIMS`` | where claims that a ``pvc://`` URI names are mounted |
    | ``EDGEFOLIO_TRITON``, ``EDGEFOLIO_TRITON_METRICS`` | addresses of Triton's gRPC service and of its metrics |
    | ``EDGEFOLIO_KEY_FILE`` | file with the key of Triton's control, ``name=secret`` |
    | ``EDGEFOLIO_THREADS`` | threads of one model instance |
    | ``EDGEFOLIO_MEMORY_LIMIT`` | what Triton may take, in bytes |
    | ``EDGEFOLIO_STORAGE_LIMIT`` | what may lie in the model repository, in bytes |
    | ``EDGEFOLIO_BYTES_PER_SECOND`` | how fast variants are fetched at most |
    | ``EDGEFOLIO_METRICS_PORT`` | port of its own metrics; 0: any free one |
    """

    pod: str
    namespace: str
    models: Path = Path("/models")
    state: Path = Path("/state")
    health: Path | None = None
    claims: Path = Path("/claims")
    triton: str = "grpc://127.0.0.1:8001"
    triton_metrics: str = "127.0.0.1:8002"
    key_file: Path | None = None
    threads: int = 1
    memory_limit_bytes: int | None = None
    storage_limit_bytes: int | None = None
    bytes_per_second: int | None = None
    metrics_port: int = 0

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the environment. Raises :class:`UserError` for what is missing or cannot be read."""

        def needed(name: str) -> str:
            if not environment.get(name):
                raise UserError("it is not set.", field=name, remedy="Set the variable, as the operator's pods do.")
            return environment[name]

        def place(name: str, default: str | None = None) -> Path | None:
            value = environment.get(name) or default
            return None if value is None else Path(value)

        return cls(
            pod=needed("POD_NAME"),
            namespace=needed("POD_NAMESPACE"),
            models=place("EDGEFOLIO_MODELS") or cls.models,
            state=place("EDGEFOLIO_STATE") or cls.state,
            health=place("EDGEFOLIO_HEALTH"),
            claims=place("EDGEFOLIO_CLAIMS") or cls.claims,
            triton=environment.get("EDGEFOLIO_TRITON") or cls.triton,
            triton_metrics=environment.get("EDGEFOLIO_TRITON_METRICS") or cls.triton_metrics,
            key_file=place("EDGEFOLIO_KEY_FILE"),
            threads=_number(environment, "EDGEFOLIO_THREADS", least=1) or cls.threads,
            memory_limit_bytes=_number(environment, "EDGEFOLIO_MEMORY_LIMIT", least=1),
            storage_limit_bytes=_number(environment, "EDGEFOLIO_STORAGE_LIMIT", least=1),
            bytes_per_second=_number(environment, "EDGEFOLIO_BYTES_PER_SECOND", least=1),
            metrics_port=_number(environment, "EDGEFOLIO_METRICS_PORT", least=0) or cls.metrics_port,
        )

    def place_of(self, uri: str) -> str:
        """Where the repository at ``uri`` is read: a claim is a directory here."""
        match = _CLAIM_URI.match(uri)
        return uri if match is None else f"{self.claims / match[1]}{match[3] or ''}"


def _number(environment: Mapping[str, str], name: str, *, least: int) -> int | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < least:
        raise UserError(
            f"it must be a whole number, at least {least}.", field=name, value=text, remedy="Correct the variable."
        )
    return int(text)
