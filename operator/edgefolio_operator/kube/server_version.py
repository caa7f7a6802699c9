"""What the cluster can do, from the version that its API server tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Without more knowledge: what Kubernetes 1.30 can do."""

    prefers_same_node: bool = False
    """Whether a Service may say ``trafficDistribution: PreferSameNode`` (Kubernetes 1.35 and later)."""

    @classmethod
    def of(cls, version: Mapping[str, Any]) -> Capabilities:
        """Of the answer to ``/version``. Distributions write ``"minor": "35+"``; what cannot be read can do little."""
        numbers = [re.match(r"[0-9]+", str(version.get(part, ""))) for part in ("major", "minor")]
        found = tuple(int(number[0]) if number else 0 for number in numbers)
        return cls(prefers_same_node=found >= (1, 35))
