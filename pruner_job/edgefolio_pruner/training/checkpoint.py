"""Atomic checkpoint files: safetensors and JSON, written to a temporary file, flushed and renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from edgefolio.files import PARTIAL_SUFFIX, write_durably

_HEADER = "edgefolio"
_FIELD = "--work-dir"


@dataclass(frozen=True)
class Stored:
    """Tensors by name, and the record that was written with them."""

    tensors: dict[str, torch.Tensor]
    record: dict[str, Any]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any] | None = None) -> None:
    """Put ``tensors`` and ``record`` (JSON) into the safetensors file ``path``, in one rename."""
    # Clones: safetensors refuses tensors that share memory (tied weights).
    separate = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    content = safetensors.torch.save(separate, metadata={_HEADER: json.dumps(record or {}, sort_keys=True)})
    write_durably(path, content, field=_FIELD)


def read_tensors(path: Path) -> Stored | None:
    """What :func:`write_tensors` wrote; None if it is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            return Stored(tensors={name: file.get_tensor(name) for name in file.keys()}, record=record)  # noqa: SIM118
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError):
        return None


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Put ``record`` into ``path``, in one rename."""
    write_durably(path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode(), field=_FIELD)


def read_json(path: Path) -> dict[str, Any] | None:
    """What :func:`write_json` wrote; None if it is missing or damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def remove_unfinished(folder: Path) -> None:
    """Remove partial files of killed runs under ``folder``."""
    for path in folder.rglob(f".*{PARTIAL_SUFFIX}"):
        path.unlink(missing_ok=True)
