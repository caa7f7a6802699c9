"""The agent's settings, from the environment variables that the operator's pod template sets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgefolio.contract import pod
from edgefolio.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings as described in :mod:`edgefolio.contract.pod`; the defaults are for pods made by others."""

    name: str
    namespace: str
    models: Path = Path(pod.MODELS_MOUNT)
    state: Path = Path(pod.STATE_MOUNT)
    health: Path | None = None
    claims: Path = Path(pod.CLAIMS_MOUNT)
    triton: str = f"grpc://127.0.0.1:{pod.GRPC_PORT}"
    triton_metrics: str = f"127.0.0.1:{pod.METRICS_PORT}"
    key_file: Path | None = None
    credentials: Path | None = None
    threads: int = 1
    memory_limit_bytes: int | None = None
    shared_memory_bytes: int | None = None
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

        def place(name: str) -> Path | None:
            value = environment.get(name)
            return Path(value) if value else None

        return cls(
            name=needed(pod.POD_NAME),
            namespace=needed(pod.POD_NAMESPACE),
            models=place(pod.MODELS_VARIABLE) or cls.models,
            state=place(pod.STATE_VARIABLE) or cls.state,
            health=place(pod.HEALTH_VARIABLE),
            claims=place(pod.CLAIMS_VARIABLE) or cls.claims,
            triton=environment.get(pod.TRITON_VARIABLE) or cls.triton,
            triton_metrics=environment.get(pod.TRITON_METRICS_VARIABLE) or cls.triton_metrics,
            key_file=place(pod.KEY_FILE_VARIABLE),
            credentials=place(pod.CREDENTIALS_VARIABLE),
            threads=_number(environment, pod.THREADS_VARIABLE, least=1) or cls.threads,
            memory_limit_bytes=_number(environment, pod.MEMORY_LIMIT_VARIABLE, least=1),
            shared_memory_bytes=_number(environment, pod.SHARED_MEMORY_VARIABLE, least=1),
            storage_limit_bytes=_number(environment, pod.STORAGE_LIMIT_VARIABLE, least=1),
            bytes_per_second=_number(environment, pod.BYTES_PER_SECOND_VARIABLE, least=1),
            metrics_port=_number(environment, pod.METRICS_PORT_VARIABLE, least=0) or cls.metrics_port,
        )

    def place_of(self, uri: str) -> str:
        """Local place of the repository at ``uri``: a claim is a directory here."""
        return pod.path_in_pod(uri, claims=str(self.claims))


def _number(environment: Mapping[str, str], name: str, *, least: int) -> int | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < least:
        raise UserError(
            f"it must be a whole number, at least {least}.", field=name, value=text, remedy="Correct the variable."
        )
    return int(text)
