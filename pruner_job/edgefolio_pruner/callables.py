"""A user's callable by its name, ``module:callable``, and the files that its code lies in."""

from __future__ import annotations

import ast
import importlib
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgefolio.errors import UserError

#: Where packages are installed: their versions are told, their files are not read.
_INSTALLED = frozenset({"site-packages", "dist-packages"})
#: The interpreter's own modules.
_STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_LARGEST_FILE = 16 << 20


def imported(name: str, *, field: str, example: str) -> Callable[..., Any]:
    """The callable ``name``, of a package that is installed or a module in the working directory.

    Raises :class:`UserError` for ``field``.
    """
    module_name, separator, attribute = name.partition(":")
    if not separator or not module_name or not attribute:
        raise UserError(
            "a factory is module:callable.", field=field, value=name, remedy=f"Write for example {example}."
        )
    # The console script does not look in the working directory, where a user's module usually lies.
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs the user's module: it may raise anything
        raise UserError(
            f"it cannot be imported ({type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}).",
            field=field,
            value=name,
            remedy="Name a module on PYTHONPATH or in the working directory, and a callable in it.",
        ) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
            # Code that imports its helpers when it is called finds them, and shadows nothing.
            sys.path.append(here)
    if not callable(found):
        raise UserError("it is not callable.", field=field, value=name, remedy="Name a function or a class.")
    return found  # type: ignore[no-any-return]


def source_files(module_name: str) -> frozenset[Path]:
    """The file of a loaded module that is not installed, and all that it imports from the same folder.

    Imports are read, not run: one within a function counts as well, whether it has been called or not.
    """
    path = file_of(module_name)
    if path is None:
        return frozenset()
    folder = top_folder(module_name, path)
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        waiting += [other for other in _imports(path, folder) if other not in found]
    return frozenset(found)


def file_of(module_name: str) -> Path | None:
    """The source file of a loaded module that is not installed as part of a package."""
    origin = getattr(sys.modules.get(module_name), "__file__", None)
    if not isinstance(origin, str) or not origin.endswith(".py"):
        return None
    path = Path(origin).resolve()
    if _INSTALLED & set(path.parts) or any(path.is_relative_to(folder) for folder in _STANDARD):
        return None
    try:
        return path if 0 < path.stat().st_size <= _LARGEST_FILE else None
    except OSError:
        return None


def top_folder(module_name: str, path: Path) -> Path:
    """The folder from which the module is imported; of a package, that of the package."""
    depth = module_name.count(".") + (path.name == "__init__.py")
    return path.parents[max(0, depth - 1)] if depth else path.parent


def _imports(path: Path, folder: Path) -> Iterator[Path]:
    """Files below ``folder`` that the code in ``path`` imports, with the packages that hold them."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return
    roots = (folder, folder.parent) if (folder / "__init__.py").is_file() else (folder,)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from _found([alias.name for alias in node.names], roots)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = [base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)]
            # One dot is the package of this file.
            yield from _found(names, (path.parents[node.level - 1],) if node.level else roots)


def _found(names: list[str], roots: tuple[Path, ...]) -> Iterator[Path]:
    for name in names:
        pieces = name.split(".")
        for root in roots:
            for end in range(1, len(pieces) + 1):
                place = root.joinpath(*pieces[:end])
                for candidate in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
                    if place.name and candidate.is_file() and candidate.stat().st_size <= _LARGEST_FILE:
                        yield candidate.resolve()
