"""Small drafts, and portfolios published from them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from draft_manifests import draft_manifest, draft_variant

from edgefolio.manifest import Manifest
from edgefolio.repository import Publication


def draft_of(contents: dict[str, bytes], *, model: str = "digits") -> Manifest:
    """A manifest for variants with these bytes, least accurate first."""
    variants = [draft_variant(name, rank, content) for rank, (name, content) in enumerate(contents.items(), start=1)]
    return draft_manifest(variants, model=model)


def contents_of(text: str, *, size: int = 3000) -> dict[str, bytes]:
    """Bytes of two variants, by name, that depend on ``text``."""
    return {
        name: as_model(hashlib.sha256(f"{text} {name}".encode()).digest() * (size // 32 + 1))
        for name in ("small", "large")
    }


def as_model(weights: bytes) -> bytes:
    """The least ONNX model, in the wire format: IR version 8, a graph of one tensor, operator set 17."""
    tensor = b"\x42\x01w\x4a" + _varint(len(weights)) + weights
    graph = b"\x2a" + _varint(len(tensor)) + tensor
    return b"\x08\x08\x3a" + _varint(len(graph)) + graph + b"\x42\x02\x10\x11"


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def publish_draft(uri: str, folder: Path, text: str = "one", *, model: str = "digits") -> Manifest:
    """Publish a revision whose bytes depend on ``text``; its files pass through ``folder``."""
    contents = contents_of(text)
    files = {name: folder / f"{text}-{name}.onnx" for name in contents}
    folder.mkdir(exist_ok=True)
    for name, path in files.items():
        path.write_bytes(contents[name])
    return Publication.open(uri).publish(draft_of(contents, model=model), files, history_limit=5).manifest
