"""A plan as one of its workers sees it: what arrives and leaves, and how many bytes that is.

The bytes of the plan were verified where they were fetched; this reader insists on what its own arithmetic needs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["FLOAT_BYTES", "PlanError", "Segment", "Transfer", "WorkerPlan"]

FLOAT_BYTES = 4


class PlanError(ValueError):
    """The plan is not one that a worker can follow."""


#: As when splits are made and verified: far above what another processor rounds, far below what a wrong weight does.
PROBE_TOLERANCE = 1e-3
#: A number between two levels of the wire may round to either.
PROBE_LEVELS = 1


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One tensor from one worker to another at an exchange; ``elements`` numbers a sample.

    ``sent`` is its name at the sender, ``received`` at the receiver.
    """

    exchange: int
    sender: int
    receiver: int
    sent: str
    received: str
    elements: int


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One file of this worker: what it computes between two exchanges."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """A plan for the worker ``rank``. Shapes are those of one sample.

    ``sums[k]`` tells whether output k is the sum of all workers' parts; else it is worker 0's. Floats of this worker's
    probe may differ by ``probe_tolerance`` of the largest, bytes of the wire by ``probe_levels``.
    """

    sha256: str
    rank: int
    workers: int
    wire: str
    input: str
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    sums: tuple[bool, ...]
    transfers: tuple[Transfer, ...]
    segments: tuple[Segment, ...]
    probe_tolerance: float = PROBE_TOLERANCE
    probe_levels: int = PROBE_LEVELS

    @classmethod
    def read(
        cls,
        raw: bytes,
        *,
        rank: int,
        input_shape: Sequence[int],
        output_shapes: Sequence[Sequence[int]],
    ) -> WorkerPlan:
        """The plan in ``raw`` for ``rank``, of a model with these shapes. Raises :class:`PlanError`."""
        try:
            document = json.loads(raw)
            return cls._read(document, hashlib.sha256(raw).hexdigest(), rank, input_shape, output_shapes)
        except PlanError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
            raise PlanError(f"the plan cannot be read ({type(error).__name__}: {str(error)[:200]})") from error

    @classmethod
    def _read(
        cls,
        document: Any,
        sha256: str,
        rank: int,
        input_shape: Sequence[int],
        output_shapes: Sequence[Sequence[int]],
    ) -> WorkerPlan:
        workers = int(document["workers"])
        if not 0 <= rank < workers <= 255:
            raise PlanError(f"the plan has {workers} workers, none of them is {rank}")
        shapes = (tuple(input_shape), *map(tuple, output_shapes))
        if any(size < 1 for shape in shapes for size in shape):
            raise PlanError("a size of the model's input or output is not fixed")
        transfers = [
            Transfer(
                exchange=number,
                sender=int(each["sender"]),
                receiver=int(each["receiver"]),
                sent=str(each["sent"]),
                received=str(each["received"]),
                elements=int(exchange["elements"]) * len(each["slots"]),
            )
            for number, exchange in enumerate(document["exchanges"])
            for each in exchange["transfers"]
        ]
        segments = document["shards"][rank]["segments"]
        # Quantized shards need more, as their plan says.
        probe = document["shards"][rank].get("probe") or {}
        found = cls(
            sha256=sha256,
            rank=rank,
            workers=workers,
            wire=str(document["wire"]),
            input=str(document["input"]),
            input_shape=shapes[0],
            outputs=tuple(map(str, document["outputs"])),
            output_shapes=shapes[1:],
            sums=tuple(how == "Sum" for how in document["combination"]),
            transfers=tuple(transfers),
            segments=tuple(Segment(file=str(each["file"]), sha256=str(each["sha256"])) for each in segments),
            probe_tolerance=float(probe.get("relativeTolerance", PROBE_TOLERANCE)),
            probe_levels=int(probe.get("levels", PROBE_LEVELS)),
        )
        if not len(found.outputs) == len(found.output_shapes) == len(found.sums):
            raise PlanError(f"the plan has {len(found.outputs)} outputs, the model {len(found.output_shapes)}")
        if not (0 < found.probe_tolerance <= 1 and 0 <= found.probe_levels <= 255):
            raise PlanError(f"its probe may differ by {found.probe_tolerance} and {found.probe_levels} levels")
        if found.wire not in ("Float32", "UInt8"):
            raise PlanError(f"the wire {found.wire!r} is unknown")
        return found

    @property
    def element_bytes(self) -> int:
        """Bytes of a number on the wire."""
        return FLOAT_BYTES if self.wire == "Float32" else 1

    @property
    def peers(self) -> tuple[int, ...]:
        """All other ranks."""
        return tuple(rank for rank in range(self.workers) if rank != self.rank)

    @property
    def incoming(self) -> tuple[Transfer, ...]:
        """What this worker receives."""
        return tuple(each for each in self.transfers if each.receiver == self.rank)

    @property
    def outgoing(self) -> tuple[Transfer, ...]:
        """What it sends."""
        return tuple(each for each in self.transfers if each.sender == self.rank)

    @property
    def answering(self) -> frozenset[int]:
        """The ranks whose parts make an answer."""
        return frozenset(range(self.workers) if any(self.sums) else (0,))

    def parts_of(self, rank: int) -> tuple[int, ...]:
        """The numbers of the outputs that ``rank`` contributes to, in the plan's order."""
        return tuple(number for number, is_sum in enumerate(self.sums) if is_sum or rank == 0)

    def input_bytes(self, samples: int) -> int:
        """Payload of INPUT."""
        return FLOAT_BYTES * samples * math.prod(self.input_shape)

    def transfer_bytes(self, transfer: Transfer, samples: int) -> int:
        """Payload of MAPS."""
        return self.element_bytes * samples * transfer.elements

    def result_bytes(self, rank: int, samples: int) -> int:
        """Payload of a RESULT of ``rank``."""
        return FLOAT_BYTES * samples * sum(math.prod(self.output_shapes[number]) for number in self.parts_of(rank))

    def most_bytes_to(self, peer: int, samples: int) -> int:
        """At most so many payload bytes of one job go to ``peer``, wherever it entered."""
        maps = sum(self.transfer_bytes(each, samples) for each in self.outgoing if each.receiver == peer)
        return maps + max(self.input_bytes(samples), self.result_bytes(self.rank, samples))
