"""The version of the API server, and what depends on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, order=True)
class ServerVersion:
    """Version of Kubernetes; the oldest supported one where it is not known."""

    major: int = 1
    minor: int = 30

    @classmethod
    def of(cls, version: Mapping[str, Any]) -> ServerVersion:
        """Of the answer to ``/version``. Distributions write ``"minor": "35+"``; an unreadable one is the oldest."""
        numbers = [re.match(r"[0-9]+", str(version.get(part, ""))) for part in ("major", "minor")]
        found = [int(number[0]) for number in numbers if number]
        return cls(major=found[0], minor=found[1]) if len(found) == 2 else cls()

    @property
    def prefers_same_node(self) -> bool:
        """Whether a Service may say ``trafficDistribution: PreferSameNode`` (Kubernetes 1.35 and later)."""
        return self >= ServerVersion(major=1, minor=35)
