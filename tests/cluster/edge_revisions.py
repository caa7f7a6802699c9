"""Revisions that somebody publishes into the bucket of an edge site that follows it: good ones, and poisoned ones."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_portfolio import MODEL

from edgefolio.manifest import Manifest, sha256_of
from edgefolio.repository import Publication, Repository, layout

if TYPE_CHECKING:
    from edge_site import EdgeSite

#: Fields of the spec that let a site follow what others publish.
FOLLOWING: Mapping[str, Any] = {"source": None, "data": None, "methods": None}
POISONED = ("bytes that are not the manifest's", "answers that are not the manifest's", "files that are no models")


def publish_again(site: EdgeSite) -> Manifest:
    """The models of the newest good revision as a new one, which the operator is told to look for."""
    return _publish(site, _drafted(_good(site)))


def publish_poisoned(site: EdgeSite, poison: str) -> Manifest:
    """A revision that nobody may serve, for the reason of :data:`POISONED`."""
    draft = _drafted(_good(site))
    if poison == POISONED[1]:
        return _publish(site, _answering_otherwise(draft))
    if poison == POISONED[2]:
        return _publish(site, draft, replaced=b"no model")
    published = _publish(site, draft, look=False)
    for path in _files(site, published).values():
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(bytes(raw))
    _look(site)
    return published


def _good(site: EdgeSite) -> Manifest:
    """What the site serves: poisoned revisions never are."""
    revision = max(entry["status"]["activeRevision"] for entry in site.endpoints().values() if "status" in entry)
    return Repository.open(str(_folder(site))).manifest(MODEL, revision)


def _drafted(manifest: Manifest) -> Manifest:
    # Equal contents would not be published twice.
    return manifest.model_copy(update={"reproduce": f"published again at {time.time():.3f}"})


def _answering_otherwise(draft: Manifest) -> Manifest:
    document = draft.model_dump(mode="python")
    for variant in document["variants"]:
        for tensor in variant["probe"]["outputs"]:
            tensor["values"] = tuple(value + 1000.0 for value in tensor["values"])
    return Manifest.model_validate(document)


def _publish(site: EdgeSite, draft: Manifest, *, replaced: bytes | None = None, look: bool = True) -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, source in _files(site, draft).items():
            files[name] = Path(folder) / f"{name}.onnx"
            if replaced is None:
                shutil.copyfile(source, files[name])
            else:
                files[name].write_bytes(replaced + name.encode())
        if replaced is not None:
            document = draft.model_dump(mode="python")
            for variant in document["variants"]:
                raw = files[variant["name"]].read_bytes()
                variant |= {"sha256": sha256_of(raw), "size_bytes": len(raw)}
            draft = Manifest.model_validate(document)
        published = Publication.open(str(_folder(site))).publish(draft, files, history_limit=8).manifest
    if look:
        _look(site)
    return published


def _look(site: EdgeSite) -> None:
    request = f"edgefolio.dev/make-requested-at={time.time():.3f}"
    site.kubernetes.kubectl("annotate", "--overwrite", "mpf", "digits", request)


def _files(site: EdgeSite, manifest: Manifest) -> dict[str, Path]:
    folder = _folder(site)
    return {entry.name: folder / layout.variant_path(MODEL, entry.file) for entry in manifest.variants}


def _folder(site: EdgeSite) -> Path:
    return site.bucket / "site"
