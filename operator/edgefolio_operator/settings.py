"""Settings of the operator, from the environment variables that the chart sets."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from edgefolio.components import TRITON_IMAGE
from edgefolio.errors import UserError
from edgefolio_operator.cluster_state.resource_usage import LONGEST_BELIEF_SECONDS
from edgefolio_operator.resources.pruning_job import Images


@dataclass(frozen=True, kw_only=True)
class Settings:
    """| variable | meaning |
    |---|---|
    | ``EDGEFOLIO_NAMESPACES`` | namespaces to watch, separated by commas; absent: all of them |
    | ``EDGEFOLIO_READ_NODES`` | ``true``: with single namespaces, nodes and namespaces of the cluster are read, too |
    | ``EDGEFOLIO_PRUNER_IMAGE``, ``EDGEFOLIO_AGENT_IMAGE``, ``EDGEFOLIO_TRITON_IMAGE`` | images where none is named |
    | ``EDGEFOLIO_IDENTITY`` | name of this operator in the lease; absent: the host's name |
    | ``EDGEFOLIO_LEASE_NAMESPACE`` | where the lease lies; absent: the pod's own namespace |
    | ``EDGEFOLIO_CYCLE_SECONDS`` | time between two cycles |
    | ``EDGEFOLIO_METRICS_POLL_SECONDS`` | time between two polls of metrics.k8s.io |
    | ``EDGEFOLIO_METRICS_STALE_SECONDS`` | age from which a sample is ignored; three of its windows if longer |
    | ``EDGEFOLIO_METRICS_PORT``, ``EDGEFOLIO_PROBE_PORT`` | ports of metrics and liveness; 0: none |
    """

    images: Images
    namespaces: tuple[str, ...] = ()
    read_nodes: bool = False
    identity: str = ""
    lease_namespace: str = ""
    cycle_seconds: float = 2.0
    metrics_poll_seconds: float = 15.0
    metrics_stale_seconds: float = 60.0
    metrics_port: int = 8080
    probe_port: int = 8081

    @property
    def reads_nodes(self) -> bool:
        """Whether it may read what belongs to no namespace."""
        return self.read_nodes or not self.namespaces

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the environment. Raises :class:`~edgefolio.errors.UserError` for what cannot be read."""
        namespaces = [name.strip() for name in environment.get("EDGEFOLIO_NAMESPACES", "").split(",")]
        return cls(
            images=Images(
                pruner=environment.get("EDGEFOLIO_PRUNER_IMAGE", "edgefolio-pruner"),
                agent=environment.get("EDGEFOLIO_AGENT_IMAGE", "edgefolio-agent"),
                triton=environment.get("EDGEFOLIO_TRITON_IMAGE", TRITON_IMAGE),
            ),
            namespaces=tuple(name for name in namespaces if name),
            read_nodes=_switch(environment, "EDGEFOLIO_READ_NODES"),
            identity=environment.get("EDGEFOLIO_IDENTITY") or socket.gethostname(),
            lease_namespace=environment.get("EDGEFOLIO_LEASE_NAMESPACE", ""),
            cycle_seconds=_number(environment, "EDGEFOLIO_CYCLE_SECONDS", default=2.0, least=0.1, most=60.0),
            metrics_poll_seconds=_number(
                environment, "EDGEFOLIO_METRICS_POLL_SECONDS", default=15.0, least=1.0, most=300.0
            ),
            metrics_stale_seconds=_number(
                environment, "EDGEFOLIO_METRICS_STALE_SECONDS", default=60.0, least=5.0, most=LONGEST_BELIEF_SECONDS
            ),
            metrics_port=int(_number(environment, "EDGEFOLIO_METRICS_PORT", default=8080, least=0, most=65535)),
            probe_port=int(_number(environment, "EDGEFOLIO_PROBE_PORT", default=8081, least=0, most=65535)),
        )


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "").strip()
    if text not in ("", "true", "false"):
        raise UserError("it must be true or false.", field=name, value=text, remedy="Correct the variable.")
    return text == "true"


def _number(environment: Mapping[str, str], name: str, *, default: float, least: float, most: float) -> float:
    text = environment.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise UserError(
            f"it must be a number from {least:g} to {most:g}.", field=name, value=text, remedy="Correct the variable."
        )
    return value
