"""The shard of one worker: its segments as sessions, each compared with its recorded inputs and outputs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio_worker.computing.probe_file import Arrays, ProbeError, difference, read_tensors
from edgefolio_worker.computing.sessions import open_session
from edgefolio_worker.protocol.plan import WorkerPlan

__all__ = ["Shard", "ShardError"]

#: What is nearly nothing may differ by so much.
_LEAST_DIFFERENCE = 1e-5


class ShardError(RuntimeError):
    """The shard is not the plan's, or computes something else."""


@dataclass(frozen=True)
class _Segment:
    session: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Shard:
    """The opened segments of ``plan.rank``. ``inputs`` are the names that each of them reads.

    ``shapes`` are those of one sample of every tensor that arrives from a peer, by its name here.
    """

    def __init__(self, plan: WorkerPlan, folder: Path, *, threads: int) -> None:
        """Open the files below ``folder`` and compare every probe. Raises :class:`ShardError`."""
        self.plan = plan
        self._segments: list[_Segment] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        probe = _read(folder / f"shard-{plan.rank}" / "probe.safetensors")
        try:
            recorded = read_tensors(probe)
        except ProbeError as error:
            raise ShardError(f"shard-{plan.rank}/probe.safetensors: {error}") from error
        for number, segment in enumerate(plan.segments):
            content = _read(folder / segment.file)
            found = hashlib.sha256(content).hexdigest()
            if found != segment.sha256:
                raise ShardError(f"{segment.file} is not the file of the plan: its sha256 is {found}")
            try:
                session = open_session(content, threads=threads)
            except Exception as error:  # ONNX Runtime has no common type
                raise ShardError(f"{segment.file} cannot be opened: {' '.join(str(error).split())[:300]}") from error
            names = tuple(value.name for value in session.get_inputs())
            outputs = tuple(value.name for value in session.get_outputs())
            self._segments.append(_Segment(session, names, outputs))
            self._compare(number, segment.file, recorded)
        self.inputs = tuple(segment.inputs for segment in self._segments)
        self._require_whole()

    def run(self, segment: int, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """What a segment gives, by name. Raises whatever ONNX Runtime does."""
        opened = self._segments[segment]
        values = opened.session.run(list(opened.outputs), dict(inputs))
        return dict(zip(opened.outputs, values, strict=True))

    def _compare(self, number: int, file: str, recorded: Arrays) -> None:
        opened = self._segments[number]
        try:
            inputs = {name: recorded[f"{number}/in/{name}"] for name in opened.inputs}
            expected = {name: recorded[f"{number}/out/{name}"] for name in opened.outputs}
        except KeyError as error:
            raise ShardError(f"{file}: the probe lacks {error}, so nothing proves its answers") from error
        try:
            answers = self.run(number, inputs)
        except Exception as error:  # ONNX Runtime has no common type
            raise ShardError(f"{file} cannot be run: {' '.join(str(error).split())[:300]}") from error
        plan = self.plan
        wrong = difference(
            expected,
            answers,
            absolute=_LEAST_DIFFERENCE,
            relative=plan.probe_tolerance,
            levels=plan.probe_levels,
        )
        if wrong is not None:
            raise ShardError(f"{file}: {wrong}")
        self.shapes |= {name: values.shape[1:] for name, values in inputs.items()}

    def _require_whole(self) -> None:
        """What the plan sends, receives and answers exists, in the plan's sizes and types."""
        plan, given = self.plan, {name for segment in self._segments for name in segment.outputs}
        received = {each.received: each for each in plan.incoming}
        for number, segment in enumerate(self._segments):
            before = {name for earlier in self._segments[:number] for name in earlier.outputs}
            lacking = set(segment.inputs) - before - set(received) - {plan.input}
            if lacking:
                raise ShardError(f"segment {number} reads {min(lacking)}, which nothing before it gives")
        wanted = {each.sent for each in plan.outgoing} | {
            plan.outputs[output] for output in plan.parts_of(plan.rank) if plan.rank in plan.answering
        }
        if wanted - given:
            raise ShardError(f"no segment gives {min(wanted - given)}")
        for name, each in received.items():
            # A tensor that no segment reads is dropped as it comes.
            if name in self.shapes and math.prod(self.shapes[name]) != each.elements:
                raise ShardError(f"{name} has the shape {self.shapes[name]}, the plan says {each.elements} numbers")

    def arrived(self, name: str, payload: bytearray, samples: int) -> npt.NDArray[Any]:
        """The tensor in a payload whose length was checked."""
        kind = "<f4" if self.plan.wire == "Float32" else "|u1"
        values = np.frombuffer(payload, dtype=kind)
        return values.reshape(samples, *self.shapes[name]) if name in self.shapes else values


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ShardError(f"{path.name} cannot be read ({error.strerror})") from error
