"""Publish a revision whose bytes are not what its manifest says, as a broken upload or an attacker would."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgefolio.manifest import VERSIONS_PER_REVISION, CurrentPointer, Manifest, sha256_of


def publish_corrupted(repository: Path, manifest: Manifest) -> int:
    """Copy ``manifest``'s revision to the next number, break one byte of each variant, point to it; return it."""
    revision = manifest.revision + 1
    models = repository / "models" / manifest.model
    variants = []
    for variant in manifest.variants:
        content = bytearray((models / variant.file).read_bytes())
        content[len(content) // 2] ^= 0xFF
        file = f"{revision * VERSIONS_PER_REVISION + variant.rank}/model.onnx"
        (models / file).parent.mkdir()
        (models / file).write_bytes(content)
        variants.append(variant.model_copy(update={"file": file}))
    raw = manifest.model_copy(update={"revision": revision, "variants": tuple(variants)}).to_bytes()
    revisions = repository / "revisions" / manifest.model
    (revisions / f"{revision}.json").write_bytes(raw)
    pointer = CurrentPointer(model=manifest.model, revision=revision, manifest_sha256=sha256_of(raw))
    replacement = revisions / "current.json.new"
    replacement.write_text(pointer.model_dump_json(by_alias=True))
    replacement.replace(revisions / "current.json")
    return revision


def withdraw_corrupted(repository: Path, manifest: Manifest) -> None:
    """Undo what :func:`publish_corrupted` did, where it did: ``manifest``'s revision is the current one again."""
    revision = manifest.revision + 1
    models, revisions = repository / "models" / manifest.model, repository / "revisions" / manifest.model
    for variant in manifest.variants:
        shutil.rmtree(models / str(revision * VERSIONS_PER_REVISION + variant.rank), ignore_errors=True)
    (revisions / f"{revision}.json").unlink(missing_ok=True)
    raw = (revisions / f"{manifest.revision}.json").read_bytes()
    pointer = CurrentPointer(model=manifest.model, revision=manifest.revision, manifest_sha256=sha256_of(raw))
    (revisions / "current.json").write_text(pointer.model_dump_json(by_alias=True))
