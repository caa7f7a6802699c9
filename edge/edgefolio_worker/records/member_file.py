"""What the version folder of a split says of its worker, beside the plan: all that never changes while it is there.

<version>/worker.json                   this file
<version>/plan.json, shard-<rank>/...   as they were published
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["NAME", "MemberError", "WorkerMember"]

NAME = "worker.json"


class MemberError(ValueError):
    """The file cannot be read."""


@dataclass(frozen=True, kw_only=True)
class WorkerMember:
    """One worker of one split. Shapes are those of one sample.

    ``probe`` has the form of a single variant's ``probe.json``, for the split as a whole. ``fallback`` is the Triton
    version that answers while nothing says which other one does.
    """

    model: str
    rank: int
    plan_sha256: str
    input_shape: tuple[int, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    predicted_milliseconds: float
    fallback: int
    probe: dict[str, Any]

    def to_bytes(self) -> bytes:
        """As it is written: equal members give equal bytes."""
        document = {
            "model": self.model,
            "rank": self.rank,
            "planSha256": self.plan_sha256,
            "inputShape": list(self.input_shape),
            "outputShapes": [list(shape) for shape in self.output_shapes],
            "predictedMilliseconds": self.predicted_milliseconds,
            "fallback": self.fallback,
            "probe": self.probe,
        }
        return json.dumps(document, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> WorkerMember:
        """Read it. Raises :class:`MemberError`."""
        try:
            document = json.loads(raw)
            return cls(
                model=str(document["model"]),
                rank=int(document["rank"]),
                plan_sha256=str(document["planSha256"]),
                input_shape=tuple(map(int, document["inputShape"])),
                output_shapes=tuple(tuple(map(int, shape)) for shape in document["outputShapes"]),
                predicted_milliseconds=float(document["predictedMilliseconds"]),
                fallback=int(document["fallback"]),
                probe=dict(document["probe"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise MemberError(f"{NAME} cannot be read ({type(error).__name__}: {str(error)[:200]})") from error
