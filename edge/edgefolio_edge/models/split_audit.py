"""Audit of a split member: its plan, the files of its shards, every segment's probe, and the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx

from edgefolio.errors import IntegrityError
from edgefolio.manifest import Manifest, Variant
from edgefolio.records.split_plan import SplitPlan
from edgefolio.repository import Repository, layout
from edgefolio.repository.version_files import plan_at
from edgefolio.untrusted.model_file import check_onnx_file
from edgefolio_edge.models.probe import mismatch, probe_inputs
from edgefolio_split.executor import SplitExecutor
from edgefolio_split.probes import probe_problems

__all__ = ["split_problems"]


def split_problems(
    repository: Repository, manifest: Manifest, variant: Variant, folder: Path, *, newest: tuple[int, int]
) -> Iterator[tuple[str, str]]:
    """File and fault of each problem; ``folder`` is for its files, ``newest`` the opset and IR version that are read.

    A file is given to the runtime only if its digest is right, and the bounds of untrusted models and ONNX's checker
    accept it.
    """
    base = repository.location(layout.version_folder(manifest.model, str(manifest.version_of(variant))))

    def place(name: str) -> str:
        return name.replace(str(folder), base) if str(folder) in name else f"{base}/{name}"

    try:
        path = repository.fetch(manifest, variant, folder / "plan.json")
        plan = plan_at(path)
        problems = [*_plan_problems(plan, variant), *_segment_problems(plan, folder, newest=newest)]
        if not problems:
            problems = list(_answer_problems(plan, manifest, variant, lambda name: (folder / name).read_bytes()))
    except IntegrityError as error:
        is_uri = error.location.startswith(base)
        yield error.location if is_uri else place(error.location), error.problem
        return
    yield from ((place(name), problem) for name, problem in problems)


def _plan_problems(plan: SplitPlan, variant: Variant) -> Iterator[tuple[str, str]]:
    """What the manifest says otherwise of the plan's exchanges."""
    split = variant.split
    assert split is not None
    if plan.synchronisations != split.synchronisations:
        yield (
            "plan.json",
            f"its workers wait {plan.synchronisations} times, the manifest says {split.synchronisations}.",
        )
    sent = [exchange for exchange in plan.exchanges if exchange.transfers]
    found = [
        (exchange.place, tuple(plan.element_bytes * exchange.elements_into(rank) for rank in range(plan.workers)))
        for exchange in sent
    ]
    if found != [(exchange.place, exchange.bytes_into) for exchange in split.exchanges]:
        yield "plan.json", "its exchanges, or their bytes, are not those of the manifest."


def _segment_problems(plan: SplitPlan, folder: Path, *, newest: tuple[int, int]) -> Iterator[tuple[str, str]]:
    for shard in plan.shards:
        for segment in shard.segments:
            summary = check_onnx_file(folder / segment.file, location=segment.file)
            if (summary.opset, summary.ir_version) > newest or summary.opset > newest[0]:
                yield (
                    segment.file,
                    f"opset {summary.opset} or IR version {summary.ir_version} is newer than deployed runtimes read "
                    f"({newest[0]}, {newest[1]}).",
                )
            try:
                model = onnx.load_model_from_string((folder / segment.file).read_bytes())
                onnx.checker.check_model(model, full_check=True)
            except Exception as error:  # the checker and protobuf raise several kinds
                yield segment.file, f"ONNX's checker refuses it: {' '.join(str(error).split())[:300]}."


def _answer_problems(
    plan: SplitPlan, manifest: Manifest, variant: Variant, read: Callable[[str], bytes]
) -> Iterator[tuple[str, str]]:
    """Each segment against its own probe, then all together against the member's."""
    problems = [problem for shard in plan.shards for problem in probe_problems(shard, read)]
    yield from problems
    if problems:
        return
    executor = SplitExecutor(plan, read)
    (samples,) = probe_inputs(manifest, variant.probe).values()
    try:
        outputs = executor.run(samples).outputs
    except IntegrityError:
        raise
    except Exception as error:  # onnxruntime has no common type
        yield "plan.json", f"it cannot be run: {' '.join(str(error).split())[:300]}"
        return
    names = [output.name for output in variant.probe.outputs]
    problem = mismatch(variant.probe, dict(zip(names, outputs, strict=False)))
    if problem is not None:
        yield "plan.json", f"the workers' answers to the probe are wrong together: {problem}."
