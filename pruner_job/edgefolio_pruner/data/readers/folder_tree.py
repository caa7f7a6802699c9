"""Arrangement of an image folder: which files are pictures of which class and part. All of them, or an error.

A class that was dropped in silence would shift the numbers of all others, and the weights of a head that knows it would
be scored against the wrong classes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from edgefolio.errors import UserError
from edgefolio.shown_text import shortened
from edgefolio_pruner.data.raw import TEST, TRAIN, VALIDATION

_PICTURES = frozenset(
    {
        *(".bmp", ".dib", ".gif", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".png", ".apng", ".pbm", ".pgm", ".pnm"),
        *(".ppm", ".tif", ".tiff", ".webp"),
    }
)
#: Pictures all the same, which cannot be read here: to skip them would drop samples, or whole classes.
_UNREADABLE = frozenset(
    {
        *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".svg", ".psd", ".exr", ".hdr", ".tga"),
        *(".dcm", ".nii", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".ico", ".pcx", ".eps"),
        *(".npy", ".npz"),
    }
)
#: What systems and tools leave beside pictures.
_LEFTOVERS = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found"})
_PART_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
}
_ARRANGE = "Arrange the images as <folder>/<class>/<file>.png."
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """``files`` holds part, class and path of every picture; ``skipped`` counts the other files by their suffix."""

    files: tuple[tuple[str, str, str], ...]
    class_names: tuple[str, ...]
    skipped: Mapping[str, int]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was skipped, in one line."""
        if not self.skipped:
            return ()
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.skipped.items()))
        return (shortened(f"{sum(self.skipped.values())} files that are no pictures were skipped: {kinds}", 500),)


def list_tree(filesystem: Any, root: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """All files under ``root`` with their details, and all folders; links are followed."""
    if isinstance(filesystem, LocalFileSystem):
        return _list_local(filesystem, Path(root))
    found: dict[str, dict[str, Any]] = filesystem.find(root, detail=True, withdirs=True)
    files = {path: entry for path, entry in found.items() if entry.get("type") != "directory"}
    return files, [path for path, entry in found.items() if entry.get("type") == "directory"]


def _list_local(filesystem: LocalFileSystem, root: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    files: dict[str, dict[str, Any]] = {}
    folders: list[str] = []
    # By its real path each folder on the way down is entered once: a link to one above would never end.
    waiting: list[tuple[Path, frozenset[str]]] = [(root, frozenset({os.path.realpath(root)}))]
    while waiting:
        folder, above = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                if not entry.is_dir():
                    files[entry.path] = _detail(filesystem, entry)
                    continue
                folders.append(entry.path)
                real = os.path.realpath(path)
                if real not in above:
                    waiting.append((path, above | {real}))
    return files, folders


def _detail(filesystem: LocalFileSystem, entry: os.DirEntry[str]) -> dict[str, Any]:
    try:
        detail: dict[str, Any] = filesystem.info(entry.path)
    except FileNotFoundError:
        detail = {"type": "broken link"}
    return detail if detail.get("type") in ("file", "broken link") or entry.is_file() else {**detail, "type": "other"}


def arrange(
    files: Mapping[str, Mapping[str, Any]],
    folders: Iterable[str],
    *,
    root: str,
    class_names: Collection[str],
    field: str,
    uri: str,
) -> Arrangement:
    """Part and class of every picture under ``root``. ``class_names`` are those that the user gave, or none.

    Raises :class:`UserError` for ``field`` if a class folder has no picture, if pictures of it cannot be read, if a
    link leads nowhere, or if it cannot be told whether a folder is a part or a class.
    """
    base = PurePosixPath(root.rstrip("/") or "/")
    inner = {path: PurePosixPath(path).relative_to(base).parts for path in files}
    usable = {path: parts for path, parts in sorted(inner.items()) if not _is_hidden(parts)}
    for path in usable:
        if files[path].get("type") == "broken link":
            raise UserError("this link leads nowhere.", field=field, value=path, remedy="Mend or remove it.")
    opened = [PurePosixPath(path).relative_to(base).parts for path in folders]
    # Object stores list no folders above others, and none at all of files.
    opened += [parts[:-1] for parts in inner.values()]
    above = {parts[:depth] for parts in opened for depth in range(1, len(parts) + 1)}
    tree = {parts for parts in above if not _is_hidden(parts)}
    pictures = {path: parts for path, parts in usable.items() if _suffix(path) in _PICTURES and len(parts) >= 2}
    unreadable = [path for path, parts in usable.items() if _suffix(path) in _UNREADABLE and len(parts) >= 2]
    if unreadable:
        formats = _listed({_suffix(path) for path in unreadable})
        raise UserError(
            f"{len(unreadable)} pictures have a format that is not read ({formats}), the first is "
            f"{shortened(unreadable[0], 200)!r}.",
            field=field,
            value=uri,
            remedy="Convert them, to PNG for example, or remove them.",
        )
    if not pictures:
        raise UserError("there are no images in class folders.", field=field, value=uri, remedy=_ARRANGE)
    has_parts = _has_parts(tree, pictures.values(), class_names=class_names, field=field, uri=uri)
    arranged = tuple(
        (_PART_NAMES[parts[0].lower()], parts[1], path) if has_parts else (TRAIN, parts[0], path)
        for path, parts in pictures.items()
    )
    _require_pictures(tree, arranged, has_parts=has_parts, field=field, uri=uri)
    other = [*(path for path in usable if path not in pictures), *(path for path in inner if path not in usable)]
    return Arrangement(
        files=arranged,
        class_names=tuple(sorted({name for _, name, _ in arranged})),
        skipped=Counter(_suffix(path) or "without a suffix" for path in other),
    )


def _has_parts(
    tree: set[tuple[str, ...]],
    pictures: Collection[tuple[str, ...]],
    *,
    class_names: Collection[str],
    field: str,
    uri: str,
) -> bool:
    """Whether the folders at the top are parts (train, test, ...) that hold the class folders."""
    top = {parts[0] for parts in tree if len(parts) == 1}
    if class_names and top <= set(class_names):
        return False
    parts = {name for name in top if name.lower() in _PART_NAMES}
    with_classes = {inner[0] for inner in pictures if inner[0] in parts and len(inner) >= 3}
    if not with_classes:
        return False
    loose = sorted({inner[0] for inner in pictures if inner[0] in parts and len(inner) == 2})
    if loose:
        raise UserError(
            f"the folder {loose[0]!r} is a part, and holds images without a class folder.",
            field=field,
            value=uri,
            remedy="Put the images of every part into class folders; if it is a class, name all in data.classNames.",
        )
    beside = sorted(top - parts)
    if beside:
        raise UserError(
            f"the folder {min(with_classes)!r} may be a part of the data or a class: beside it are {_listed(beside)}.",
            field=field,
            value=uri,
            remedy="Keep only train, validation and test there; if it is a class, name all in data.classNames.",
        )
    return True


def _require_pictures(
    tree: set[tuple[str, ...]],
    arranged: Iterable[tuple[str, str, str]],
    *,
    has_parts: bool,
    field: str,
    uri: str,
) -> None:
    """Every class folder for training has a picture, and every class that another part has."""
    depth = 2 if has_parts else 1
    trained = {name for part, name, _ in arranged if part == TRAIN}
    wanted = {parts[-1] for parts in tree if len(parts) == depth and (not has_parts or trained)}
    if has_parts and not trained:  # a tree for validation or test only
        trained = {name for _, name, _ in arranged}
        wanted = {parts[-1] for parts in tree if len(parts) == depth}
    empty = sorted(wanted - trained)
    if empty:
        raise UserError(
            f"{'these classes have' if len(empty) > 1 else 'this class has'} no images"
            f"{' for training' if has_parts else ''}: {_listed(empty)}.",
            field=field,
            value=uri,
            remedy="Give every class folder images, or remove it.",
        )


def _is_hidden(parts: tuple[str, ...]) -> bool:
    return any(name.startswith(".") or name.lower() in _LEFTOVERS for name in parts)


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(repr(shortened(name, 60)) for name in ordered[:_SHOWN]) + more
