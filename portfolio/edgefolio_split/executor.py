"""Reference executor: all workers of a split in one process, exchanges as copies, bytes counted.

It shows what a split answers, quantization of the wire included, without any network. Nothing in it computes: the
segments do, this moves what they send.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgefolio.errors import IntegrityError
from edgefolio.records.split_plan import SplitPlan, Transfer

__all__ = ["Answer", "Arrays", "SplitExecutor", "open_segment"]

Arrays = dict[str, npt.NDArray[Any]]
#: Worker, number of its segment, inputs, outputs.
Watch = Callable[[int, int, Arrays, Arrays], None]


@dataclass(frozen=True)
class Answer:
    """The outputs, the bytes that went into each worker at each exchange, and each worker's milliseconds."""

    outputs: tuple[npt.NDArray[np.float32], ...]
    bytes_in: Mapping[str, tuple[int, ...]]
    milliseconds: tuple[float, ...]


@dataclass
class _Worker:
    segments: list[tuple[int, Any, list[str], list[str]]] = field(default_factory=list)


class SplitExecutor:
    """Runs a plan. ``read`` gives the bytes of a file by its name in the plan."""

    def __init__(
        self, plan: SplitPlan, read: Callable[[str], bytes], *, threads: int = 1, literal: bool = False
    ) -> None:
        """Open all segments; ``literal`` computes each operator as it stands, unfused.

        Raises :class:`IntegrityError` if a file is not the one that the plan names.
        """
        self.plan = plan
        self._workers = [_Worker() for _ in range(plan.workers)]
        available = [{plan.input, *self._received(rank)} for rank in range(plan.workers)]
        for shard in plan.shards:
            for segment in shard.segments:
                session = open_segment(
                    read(segment.file),
                    sha256=segment.sha256,
                    location=segment.file,
                    threads=threads,
                    literal=literal,
                )
                inputs = [value.name for value in session.get_inputs()]
                outputs = [value.name for value in session.get_outputs()]
                missing = sorted(set(inputs) - available[shard.rank])
                if missing:
                    raise IntegrityError(
                        f"it reads {missing[0]}, which nothing before it gives.", location=segment.file
                    )
                available[shard.rank] |= set(outputs)
                self._workers[shard.rank].segments.append((segment.depth, session, inputs, outputs))
        for transfer in self._transfers():
            if transfer.sent not in available[transfer.sender]:
                raise IntegrityError(
                    f"no segment of worker {transfer.sender} gives {transfer.sent}.", location="plan.json"
                )
        for rank, names in enumerate(available):
            wanted = [o for o, how in zip(plan.outputs, plan.combination, strict=True) if how == "Sum" or rank == 0]
            lacking = [name for name in wanted if name not in names]
            if lacking:
                raise IntegrityError(
                    f"no segment of worker {rank} gives the output {lacking[0]}.", location="plan.json"
                )

    def run(self, samples: npt.NDArray[np.float32], *, watch: Watch | None = None) -> Answer:
        """The answer to a batch; ``watch`` is told of each segment that ran, by worker and number."""
        plan = self.plan
        held: list[Arrays] = [{plan.input: samples} for _ in range(plan.workers)]
        spent = [0.0] * plan.workers
        bytes_in: dict[str, list[int]] = {exchange.name: [0] * plan.workers for exchange in plan.exchanges}
        depths = sorted({depth for worker in self._workers for depth, *_ in worker.segments})
        arrivals = defaultdict(list)
        for exchange in plan.exchanges:
            arrivals[exchange.depth].append(exchange)
        for depth in sorted({*depths, *arrivals}):
            for exchange in arrivals.get(depth, ()):
                for transfer in exchange.transfers:
                    moved = held[transfer.sender][transfer.sent]
                    expected = plan.element_bytes * exchange.elements * len(transfer.slots) * len(samples)
                    if moved.nbytes != expected:
                        raise IntegrityError(
                            f"{transfer.sent} of worker {transfer.sender} has {moved.nbytes} bytes, the plan says "
                            f"{expected}.",
                            location="plan.json",
                        )
                    bytes_in[exchange.name][transfer.receiver] += moved.nbytes
                    held[transfer.receiver][transfer.received] = moved
            for rank, worker in enumerate(self._workers):
                for number, (at, session, inputs, outputs) in enumerate(worker.segments):
                    if at == depth:
                        given = {name: held[rank][name] for name in inputs}
                        start = time.perf_counter()
                        values = session.run(outputs, given)
                        spent[rank] += 1000 * (time.perf_counter() - start)
                        made = dict(zip(outputs, values, strict=True))
                        held[rank].update(made)
                        if watch is not None:
                            watch(rank, number, given, made)
        found = []
        for name, how in zip(plan.outputs, plan.combination, strict=True):
            total = held[0][name]
            if how == "Sum":
                for rank in range(1, plan.workers):
                    total = total + held[rank][name]
            found.append(np.asarray(total, dtype=np.float32))
        return Answer(tuple(found), {name: tuple(counts) for name, counts in bytes_in.items()}, tuple(spent))

    def _transfers(self) -> list[Transfer]:
        return [transfer for exchange in self.plan.exchanges for transfer in exchange.transfers]

    def _received(self, rank: int) -> set[str]:
        return {transfer.received for transfer in self._transfers() if transfer.receiver == rank}


def open_segment(content: bytes, *, sha256: str, location: str, threads: int = 1, literal: bool = False) -> Any:
    """A session of one file of a plan. Raises :class:`IntegrityError` if it is not the one that the plan names."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise IntegrityError(f"not the file that the plan names: its sha256 is {found}.", location=location)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if literal:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common type; the bytes are those of the plan
        raise IntegrityError(
            f"onnxruntime cannot load it: {str(error).splitlines()[0][:200]}", location=location
        ) from error
