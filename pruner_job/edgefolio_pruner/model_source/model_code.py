"""Digest of the code that builds a network: work of an earlier version of it must not pass for work of this one."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from edgefolio.specification import Architecture

#: Where packages are installed: their versions are told, their files are not read.
_INSTALLED = frozenset({"site-packages", "dist-packages"})
#: The interpreter's own modules.
_STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
#: Which of these are loaded differs from command to command.
_OWN_PACKAGES = (
    "edgefolio",
    "edgefolio_split",
    "edgefolio_pruner",
    "edgefolio_edge",
    "edgefolio_operator",
    "edgefolio_kubectl",
)
_LARGEST_FILE = 16 << 20


def code_digest(architecture: Architecture, module: nn.Module, *, given_weights: bool) -> str | None:
    """The sha256 over what builds ``module``; ``None`` for networks of Edgefolio itself.

    Of a factory it covers the source files of its own module, of the modules beside it that are loaded, and of those
    that define parts of the network; of libraries the versions. Besides the network's attributes and its state after
    building (with ``given_weights`` the part that they do not replace): what a factory reads elsewhere shows there.
    """
    if architecture.library == "edgefolio":
        return None
    digest = hashlib.sha256()
    names = {type(part).__module__ for part in module.modules()}
    if architecture.library == "factory":
        names.add(architecture.name.partition(":")[0])
    for path in sorted(_sources(names)):
        digest.update(f"{path.name}\n".encode())
        digest.update(path.read_bytes())
    for package in sorted({name.partition(".")[0] for name in names} | {"torch"}):
        digest.update(f"{package} {_version(package)}\n".encode())
    for path_in_network, part in module.named_modules():
        digest.update(
            f"{path_in_network} {type(part).__module__}.{type(part).__qualname__} {_settings(part)}\n".encode()
        )
    # Initial weights of a library are random numbers of this processor, and part of the keys of training.
    values = architecture.library == "factory" and not given_weights
    saved = module.state_dict().keys()
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if values or name not in saved:
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sources(names: set[str]) -> set[Path]:
    """Files of the loaded modules ``names``, and of others in the folders where those that are not installed lie."""
    own = {path for name in names if (path := _file_of(name)) is not None}
    folders = {_top(name, path) for name in names if (path := _file_of(name)) is not None}
    beside = {
        path
        for name in list(sys.modules)
        if name.partition(".")[0] not in _OWN_PACKAGES
        and (path := _file_of(name)) is not None
        and any(folder in path.parents for folder in folders)
    }
    return own | beside


def _file_of(name: str) -> Path | None:
    """The source file of a loaded module that is not installed as part of a package."""
    origin = getattr(sys.modules.get(name), "__file__", None)
    if not isinstance(origin, str) or not origin.endswith(".py"):
        return None
    path = Path(origin).resolve()
    if _INSTALLED & set(path.parts) or any(path.is_relative_to(folder) for folder in _STANDARD):
        return None
    try:
        return path if 0 < path.stat().st_size <= _LARGEST_FILE else None
    except OSError:
        return None


def _top(name: str, path: Path) -> Path:
    """The folder from which the module is imported; of a package, that of the package."""
    depth = name.count(".") + (path.name == "__init__.py")
    return path.parents[max(0, depth - 1)] if depth else path.parent


def _settings(part: nn.Module) -> str:
    """Plain attributes: what is no tensor and no module, such as strides."""
    plain = {
        name: value
        for name, value in vars(part).items()
        if not name.startswith("_")
        and name != "training"
        and isinstance(value, bool | int | float | str | tuple | list)
    }
    return repr(sorted(plain.items()))[:10_000]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
