"""Probes of shards: inputs and outputs of every segment, recorded when a split is made, compared when it is verified.

Each segment is compared with its own recorded inputs, so that what one processor rounds otherwise does not add up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from edgefolio.errors import IntegrityError
from edgefolio.records.split_plan import PlannedProbe, PlannedShard, SplitPlan
from edgefolio_split.executor import Arrays, SplitExecutor, open_segment
from edgefolio_split.steadiness import steadiest

__all__ = ["probe_problems", "with_probes"]

#: As for whole variants: far above what another processor changes, far below what a wrong weight does.
RELATIVE_TOLERANCE = 1e-3
#: A number between two levels of the wire may round to either.
LEVELS = 1


def with_probes(
    plan: SplitPlan, read: Callable[[str], bytes], samples: npt.NDArray[np.float32]
) -> tuple[SplitPlan, dict[str, bytes]]:
    """The plan with a probe for each shard, and the probes' files by name; equal arguments give equal bytes.

    Of quantized shards each segment's probe is some of ``samples``, those at which rounding decides least.
    """
    from safetensors.numpy import save

    recorded: dict[str, tuple[Arrays, Arrays]] = {}

    def watch(rank: int, number: int, inputs: Arrays, outputs: Arrays) -> None:
        recorded[plan.shards[rank].segments[number].file] = (inputs, outputs)

    SplitExecutor(plan, read).run(samples, watch=watch)
    files: dict[str, bytes] = {}
    shards = []
    for shard in plan.shards:
        name = f"shard-{shard.rank}/probe.safetensors"
        held: Arrays = {}
        tolerance, levels = RELATIVE_TOLERANCE, LEVELS
        for number, segment in enumerate(shard.segments):
            inputs, outputs = recorded[segment.file]
            if plan.precision == "Int8":
                steady = steadiest(read(segment.file), segment, inputs, outputs)
                inputs, outputs = ({key: array[steady.rows] for key, array in of.items()} for of in (inputs, outputs))
                tolerance, levels = max(tolerance, steady.relative_tolerance), max(levels, steady.levels)
            for direction, arrays in (("in", inputs), ("out", outputs)):
                held |= {f"{number}/{direction}/{key}": np.ascontiguousarray(array) for key, array in arrays.items()}
        files[name] = content = bytes(save(held))
        probe = PlannedProbe(
            file=name,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            relative_tolerance=tolerance,
            levels=levels,
        )
        shards.append(shard.model_copy(update={"probe": probe}))
    return plan.model_copy(update={"shards": tuple(shards)}), files


def probe_problems(shard: PlannedShard, read: Callable[[str], bytes]) -> Iterator[tuple[str, str]]:
    """File and fault of each segment that does not give what the shard's probe holds. Raises :class:`IntegrityError`

    for files that are not the plan's.
    """
    # Installed where splits are made or verified, not with the agent alone.
    from safetensors.numpy import load

    probe = shard.probe
    if probe is None:
        yield f"shard-{shard.rank}", "the plan names no probe for it."
        return
    content = read(probe.file)
    if hashlib.sha256(content).hexdigest() != probe.sha256:
        raise IntegrityError("not the file that the plan names.", location=probe.file)
    try:
        tensors = load(content)
    except Exception as error:  # safetensors' own kinds; numpy lacks some of its types
        yield probe.file, f"it is no safetensors file ({type(error).__name__})."
        return
    for number, segment in enumerate(shard.segments):
        session = open_segment(read(segment.file), sha256=segment.sha256, location=segment.file)
        inputs = {value.name: tensors.get(f"{number}/in/{value.name}") for value in session.get_inputs()}
        outputs = [value.name for value in session.get_outputs()]
        expected = {name: tensors.get(f"{number}/out/{name}") for name in outputs}
        missing = [name for name, array in (*inputs.items(), *expected.items()) if array is None]
        if missing:
            yield probe.file, f"it lacks {missing[0]} of segment {number}."
            continue
        try:
            answers = session.run(outputs, inputs)
        except Exception as error:  # onnxruntime has no common type
            yield segment.file, f"it cannot be run: {' '.join(str(error).split())[:300]}"
            continue
        for name, answer in zip(outputs, answers, strict=True):
            problem = _difference(np.asarray(expected[name]), np.asarray(answer), probe)
            if problem is not None:
                yield segment.file, f"its output {name} is not the probe's: {problem}."


def _difference(expected: npt.NDArray[np.generic], answer: npt.NDArray[np.generic], probe: PlannedProbe) -> str | None:
    if expected.shape != answer.shape or expected.dtype != answer.dtype:
        return f"{answer.dtype} of shape {answer.shape} instead of {expected.dtype} of shape {expected.shape}"
    wanted, found = expected.astype(np.float64), answer.astype(np.float64)
    largest = float(np.abs(wanted).max(initial=0.0))
    is_level = expected.dtype == np.uint8
    tolerance = float(probe.levels) if is_level else max(1e-5, probe.relative_tolerance * largest)
    difference = float(np.abs(found - wanted).max(initial=0.0))
    # A NaN compares as false, and is a difference.
    return None if difference <= tolerance else f"it differs by {difference:.6g}, the tolerance is {tolerance:.6g}"
