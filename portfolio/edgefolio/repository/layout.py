"""Paths below the repository's URI; made of checked values only, never of a manifest's text."""

from __future__ import annotations

import re

from edgefolio.errors import UserError

MODELS = "models"
REVISIONS = "revisions"
POINTER = "current.json"
RESERVED_SUFFIX = ".reserved"
MANIFEST_SUFFIX = ".json"
SIGNATURE_SUFFIX = ".minisig"
PROFILES_SUFFIX = ".profiles"
PROFILE_SUFFIX = ".json"
#: Larger signatures are refused unread.
MAXIMUM_SIGNATURE_BYTES = 4 << 10

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_CLASS = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SHARD = re.compile(r"shard-[0-7]")
_SHARD_FILE = re.compile(r"segment-[0-9]{1,3}\.onnx|probe\.safetensors")
_NUMBER = re.compile(r"[1-9][0-9]{0,11}")


def checked_model(model: str, *, field: str = "--model") -> str:
    """``model`` if it is one harmless path segment. Raises :class:`UserError`."""
    if not _MODEL.fullmatch(model):
        raise UserError(
            "this cannot be the name of a model.",
            field=field,
            value=model,
            remedy="Use letters, digits, '-' and '_' (at most 63).",
        )
    return model


def revisions_folder(model: str) -> str:
    """The folder of a model's manifests, reservations and pointer."""
    return f"{REVISIONS}/{checked_model(model)}"


def versions_folder(model: str) -> str:
    """The folder of a model's Triton versions."""
    return f"{MODELS}/{checked_model(model)}"


def pointer_path(model: str) -> str:
    """The pointer of a model."""
    return f"{revisions_folder(model)}/{POINTER}"


def manifest_path(model: str, revision: int) -> str:
    """The manifest of one revision."""
    return f"{revisions_folder(model)}/{revision}{MANIFEST_SUFFIX}"


def signature_path(model: str, revision: int) -> str:
    """The signature of one revision's manifest."""
    return f"{manifest_path(model, revision)}{SIGNATURE_SUFFIX}"


def reservation_path(model: str, revision: int) -> str:
    """The reservation of one revision number."""
    return f"{revisions_folder(model)}/{revision}{RESERVED_SUFFIX}"


def profiles_folder(model: str, revision: int) -> str:
    """The folder of one revision's profiles, a file for each class of processors."""
    return f"{revisions_folder(model)}/{revision}{PROFILES_SUFFIX}"


def profile_path(model: str, revision: int, class_name: str) -> str:
    """The profile of one revision on one class of processors. Raises :class:`UserError`."""
    if not _CLASS.fullmatch(class_name):
        raise UserError(
            "this cannot be the name of a class of processors.",
            field="--profile",
            value=class_name,
            remedy="Name one as `edgefolio profile` prints it.",
        )
    return f"{profiles_folder(model, revision)}/{class_name}{PROFILE_SUFFIX}"


def profile_signature_path(model: str, revision: int, class_name: str) -> str:
    """The signature of one profile."""
    return f"{profile_path(model, revision, class_name)}{SIGNATURE_SUFFIX}"


def class_in(name: str) -> str | None:
    """The class in the file name ``<class>.json``; ``None`` for any other name."""
    stem = name.removesuffix(PROFILE_SUFFIX)
    return stem if stem != name and _CLASS.fullmatch(stem) else None


def variant_path(model: str, file: str) -> str:
    """The ONNX file of a variant, or its plan; ``file`` is ``<version>/<name>`` as the manifest's schema allows it."""
    return f"{versions_folder(model)}/{file}"


def version_folder(model: str, version: str) -> str:
    """The folder of one Triton version."""
    return f"{versions_folder(model)}/{version}"


def beside(path: str, name: str) -> str:
    """The path of a shard's file, ``shard-<n>/<file>`` as a plan's schema allows it, beside the plan at ``path``."""
    return f"{path.rpartition('/')[0]}/{name}"


def is_shard(name: str) -> bool:
    """Whether ``name`` is that of a shard's folder."""
    return _SHARD.fullmatch(name) is not None


def is_shard_file(name: str) -> bool:
    """Whether ``name`` is that of a file in a shard's folder."""
    return _SHARD_FILE.fullmatch(name) is not None


def number_of(name: str, suffix: str = "") -> int | None:
    """The number in ``<number><suffix>``; ``None`` for any other name."""
    stem = name.removesuffix(suffix)
    if (suffix and stem == name) or not _NUMBER.fullmatch(stem):
        return None
    return int(stem)
