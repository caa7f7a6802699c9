"""Work directories and their copies: what is written here, what a fresh run finds there."""

from __future__ import annotations

from pathlib import Path

from edgefolio.files import write_durably
from edgefolio.repository.storage import open_storage
from edgefolio_pruner.work.mirror import WorkMirror


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def write(folder: Path, **files: bytes) -> None:
    for name, raw in files.items():
        write_durably(folder / name.replace("__", "/"), raw)


def opened(uri: str, folder: Path, *, slot: str = "main") -> WorkMirror:
    return WorkMirror.open(uri, folder, slot=slot)


def brought(uri: str, folder: Path, *, slot: str = "main") -> dict[str, bytes]:
    """What a fresh run finds."""
    opened(uri, folder, slot=slot).take()
    return content(folder) if folder.exists() else {}


def objects(uri: str, slot: str = "main") -> set[str]:
    return set(open_storage(uri, field="uri").names(f"{slot}/objects"))
