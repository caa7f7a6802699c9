"""The version folder of a split on one worker's machine: the plan, its shard, and what they belong to.

<version>/plan.json, shard-<rank>/...   verified, as they were published
<version>/worker.json                   what the backend must know besides (:mod:`edgefolio_worker.records`)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import Manifest, Variant
from edgefolio.repository.fetching import digest_of_file
from edgefolio.repository.version_files import VersionFile, files_of
from edgefolio.untrusted.model_file import check_onnx_file
from edgefolio_edge.models.probe import backend_probe
from edgefolio_edge.models.variants import by_size
from edgefolio_worker.records.member_file import NAME, WorkerMember

__all__ = ["check_segments", "folder_problem", "require_servable", "worker_member"]


def worker_member(manifest: Manifest, variant: Variant, rank: int) -> WorkerMember:
    """What the folder says of the worker ``rank``. Its own fallback is the smallest variant of one node."""
    assert variant.split is not None
    (entry,) = manifest.signature.inputs
    return WorkerMember(
        model=manifest.model,
        rank=rank,
        plan_sha256=variant.sha256,
        input_shape=entry.shape,
        output_shapes=tuple(tensor.shape for tensor in manifest.signature.outputs),
        predicted_milliseconds=max(variant.split.predicted_milliseconds, 1e-3),
        fallback=manifest.version_of(by_size(manifest)[0]),
        probe=json.loads(backend_probe(manifest, variant)),
    )


def require_servable(manifest: Manifest, variant: Variant, rank: int) -> None:
    """Raise :class:`UserError` if no worker of that rank could serve the split."""
    assert variant.split is not None
    if not 0 <= rank < variant.split.workers:
        raise UserError(
            f"the split has workers 0 to {variant.split.workers - 1}.",
            field="--rank",
            value=rank,
            remedy="Name one of them; each belongs to one node.",
        )
    tensors = (*manifest.signature.inputs, *manifest.signature.outputs)
    is_fixed = all(tensor.datatype == "FP32" and min(tensor.shape, default=1) > 0 for tensor in tensors)
    if len(manifest.signature.inputs) != 1 or not is_fixed:
        raise UserError(
            "workers of a split exchange float32 tensors of fixed shapes, of models with one input.",
            field="--variant",
            value=variant.name,
            remedy="Serve a variant of one node.",
        )


def folder_problem(folder: Path, manifest: Manifest, variant: Variant, rank: int) -> str | None:
    """What is missing or damaged in the folder of the worker ``rank``; ``None`` if all is right."""
    try:
        if (folder / NAME).read_bytes() != worker_member(manifest, variant, rank).to_bytes():
            return f"{NAME} is of another worker or manifest"
        if digest_of_file(folder / "plan.json") != variant.sha256:
            return "plan.json is not the manifest's"
        for file in _files(folder, manifest, variant, rank):
            if digest_of_file(file.local) != file.sha256:
                return f"{file.local.name} is not the plan's"
        check_segments(folder, manifest, variant, rank)
    except (OSError, IntegrityError) as error:
        return str(error)
    return None


def check_segments(folder: Path, manifest: Manifest, variant: Variant, rank: int) -> None:
    """Raise :class:`IntegrityError` for a segment that no runtime may open."""
    for file in _files(folder, manifest, variant, rank):
        if file.local.suffix == ".onnx":
            check_onnx_file(file.local, location=file.path)


def _files(folder: Path, manifest: Manifest, variant: Variant, rank: int) -> Iterator[VersionFile]:
    yield from files_of(manifest.model, variant, folder / "plan.json", shard=rank)
