"""The files of one published version: a model, or the plan of a split and its shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefolio.errors import IntegrityError
from edgefolio.manifest import Variant, sha256_of
from edgefolio.records.split_plan import MAXIMUM_PLAN_BYTES, SplitPlan, parse_plan
from edgefolio.repository import layout
from edgefolio.repository.storage import Storage

__all__ = ["VersionFile", "delete_version", "files_of", "plan_at", "published_plan", "require_plan_of"]

_PLAN, _MODEL = "plan.json", "model.onnx"


@dataclass(frozen=True, kw_only=True)
class VersionFile:
    """A file of a version: its path in the repository, what it must be, and its copy on this machine."""

    path: str
    sha256: str
    size_bytes: int
    local: Path


def files_of(model: str, variant: Variant, local: Path, *, shard: int | None = None) -> tuple[VersionFile, ...]:
    """The files of ``variant``, whose model or plan lies at ``local``, shards beside it; the plan comes last.

    ``shard`` names the worker whose files alone are meant.

    Raises :class:`IntegrityError` if the plan is none, or says something else than the manifest.
    """
    path = layout.variant_path(model, variant.file)
    own = VersionFile(path=path, sha256=variant.sha256, size_bytes=variant.size_bytes, local=local)
    if variant.split is None:
        return (own,)
    plan = plan_at(local)
    require_plan_of(plan, variant, location=str(local))
    shards = (
        VersionFile(
            path=layout.beside(path, file.file),
            sha256=file.sha256,
            size_bytes=file.size_bytes,
            local=local.parent / file.file,
        )
        for planned in plan.shards
        if shard in (None, planned.rank)
        for file in planned.files
    )
    return (*shards, own)


def plan_at(local: Path) -> SplitPlan:
    """The plan in a file. Raises :class:`IntegrityError`."""
    try:
        with local.open("rb") as stream:
            raw = stream.read(MAXIMUM_PLAN_BYTES + 1)
    except OSError as error:
        raise IntegrityError(f"the plan cannot be read ({error.strerror}).", location=str(local)) from error
    return parse_plan(raw, location=str(local))


def published_plan(storage: Storage, model: str, variant: Variant) -> SplitPlan:
    """The plan of a split as it lies in the repository. Raises :class:`IntegrityError`."""
    path = layout.variant_path(model, variant.file)
    location = f"{storage.uri.rstrip('/')}/{path}"
    raw = storage.read(path, maximum_bytes=MAXIMUM_PLAN_BYTES)
    if raw is None:
        raise IntegrityError("the file is missing.", location=location)
    if sha256_of(raw) != variant.sha256:
        raise IntegrityError(
            f"the file's digest is {sha256_of(raw)}, the manifest says {variant.sha256}.", location=location
        )
    plan = parse_plan(raw, location=location)
    require_plan_of(plan, variant, location=location)
    return plan


def require_plan_of(plan: SplitPlan, variant: Variant, *, location: str) -> None:
    """Raise :class:`IntegrityError` if the plan is not what the manifest says of it, or not one to publish."""
    split = variant.split
    assert split is not None
    same: dict[str, tuple[Any, Any]] = {
        "workers": (plan.workers, split.workers),
        "sharesPercent": (plan.shares_percent, split.shares_percent),
        "layout": (plan.layout, split.layout),
        "wire": (plan.wire, split.wire),
        "certificate": (plan.certificate, split.certificate),
        "the sizes of shards": (_each(plan.shards, "size_bytes"), _each(split.shards, "size_bytes")),
        "the parameters of shards": (_each(plan.shards, "parameters"), _each(split.shards, "parameters")),
        "the macs of shards": (_each(plan.shards, "macs"), _each(split.shards, "macs")),
    }
    for name, (of_plan, of_manifest) in same.items():
        if of_plan != of_manifest:
            raise IntegrityError(f"the plan and the manifest differ in {name}.", location=location)
    bare = next((shard.rank for shard in plan.shards if shard.probe is None), None)
    if bare is not None:
        raise IntegrityError(f"the plan names no probe for shard {bare}.", location=location)


def _each(shards: Iterable[Any], field: str) -> list[Any]:
    return [getattr(shard, field) for shard in shards]


def delete_version(storage: Storage, model: str, version: str) -> None:
    """Delete the files of one version and nothing else of its folder. Interrupted and started again, it goes on."""
    folder = layout.version_folder(model, version)
    found = storage.names(folder)
    for shard in filter(layout.is_shard, found):
        for name in filter(layout.is_shard_file, storage.names(f"{folder}/{shard}")):
            storage.delete(f"{folder}/{shard}/{name}")
    if _PLAN in found:
        storage.delete(f"{folder}/{_PLAN}")
    # Listed or not: with it goes the folder that a killed publisher left empty.
    storage.delete(f"{folder}/{_MODEL}")
