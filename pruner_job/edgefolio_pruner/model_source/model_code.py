"""Digest of the code that builds a network: work of an earlier version of it must not pass for work of this one."""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from edgefolio.specification import Architecture
from edgefolio_pruner.callables import file_of, source_files, top_folder

#: Which of these are loaded differs from command to command.
_OWN_PACKAGES = (
    "edgefolio",
    "edgefolio_split",
    "edgefolio_pruner",
    "edgefolio_edge",
    "edgefolio_operator",
    "edgefolio_kubectl",
)


def code_digest(architecture: Architecture, module: nn.Module, *, given_weights: bool) -> str | None:
    """The sha256 over what builds ``module``; ``None`` for networks of Edgefolio itself.

    Of a factory it covers the source files of its own module, of those beside it that are loaded, or that it imports
    anywhere, and of those that define parts of the network; of libraries the versions. Besides the network's attributes
    and its state after building (with ``given_weights`` the part that they do not replace): what a factory reads
    elsewhere shows there.
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
    own = {path for name in names for path in source_files(name)}
    folders = {top_folder(name, path) for name in names if (path := file_of(name)) is not None}
    beside = {
        path
        for name in list(sys.modules)
        if name.partition(".")[0] not in _OWN_PACKAGES
        and (path := file_of(name)) is not None
        and any(folder in path.parents for folder in folders)
    }
    return own | beside


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
