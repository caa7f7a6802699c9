"""A model's Triton configuration, generated from its verified manifest and from nothing else.

A configuration can name a backend that runs code, so none is ever taken from a repository.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from edgefolio.manifest import Manifest, TensorSignature
from edgefolio_edge.triton.wheel import BACKEND

#: Field names whose values are enumerations in Triton's schema: written without quotes in the text format.
_ENUMERATIONS = frozenset({"data_type", "kind"})


def configuration_of(
    manifest: Manifest, *, model_name: str, threads: int, versions: Iterable[int], warm_up: bool = False
) -> dict[str, Any]:
    """The configuration of ``model_name`` with exactly ``versions`` served, as Triton's JSON schema has it.

    ``threads`` per model instance. ``warm_up`` makes Triton run one batch of zeros before a version becomes ready: for
    backends that, unlike ours, compare no probe while loading.
    """
    signature = manifest.signature
    configuration: dict[str, Any] = {
        "name": model_name,
        "backend": BACKEND,
        "max_batch_size": signature.max_batch_size,
        "input": [_tensor(tensor) for tensor in signature.inputs],
        "output": [_tensor(tensor) for tensor in signature.outputs],
        # Without this the Python backend starts two processes for each version.
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "version_policy": {"specific": {"versions": sorted(versions)}},
        # The names that NVIDIA's own backend reads, ours reads them too.
        "parameters": {
            "intra_op_thread_count": {"string_value": str(threads)},
            "inter_op_thread_count": {"string_value": "1"},
            "session.intra_op.allow_spinning": {"string_value": "0"},
        },
    }
    if warm_up:
        inputs = {
            tensor.name: {
                "data_type": _data_type(tensor),
                "dims": [1 if size == -1 else size for size in tensor.shape] or [1],
                "zero_data": True,
            }
            for tensor in signature.inputs
        }
        configuration["model_warmup"] = [
            {
                "name": "zeros",
                "batch_size": min(manifest.request_batch_size, signature.max_batch_size),
                "inputs": inputs,
            }
        ]
    return configuration


def as_json(configuration: Mapping[str, Any]) -> str:
    """The form that a load request carries."""
    return json.dumps(configuration)


def as_text(configuration: Mapping[str, Any]) -> str:
    """The form that ``config.pbtxt`` has (protocol buffers' text format)."""
    return "".join(_field(name, value, indent="") for name, value in configuration.items())


def _tensor(tensor: TensorSignature) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": tensor.name,
        "data_type": _data_type(tensor),
        "dims": list(tensor.shape) or [1],
    }
    if not tensor.shape:
        # One scalar per sample: Triton wants at least one dimension and reshapes it away for the model.
        entry["reshape"] = {"shape": []}
    return entry


def _data_type(tensor: TensorSignature) -> str:
    return f"TYPE_{tensor.datatype}"


def _field(name: str, value: Any, *, indent: str) -> str:
    if name in {"parameters", "inputs"} and isinstance(value, Mapping):
        return "".join(_field_of_map(name, key, entry, indent=indent) for key, entry in value.items())
    if isinstance(value, Mapping):
        body = "".join(_field(key, entry, indent=indent + "  ") for key, entry in value.items())
        return f"{indent}{name} {{\n{body}{indent}}}\n"
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "".join(_field(name, entry, indent=indent) for entry in value)
    return f"{indent}{name}: {_scalar(name, value)}\n"


def _field_of_map(name: str, key: str, entry: Any, *, indent: str) -> str:
    inner = indent + "  "
    return f"{indent}{name} {{\n{inner}key: {_quoted(key)}\n{_field('value', entry, indent=inner)}{indent}}}\n"


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(name, entry) for entry in value) + "]"
    if isinstance(value, str):
        return value if name in _ENUMERATIONS else _quoted(value)
    return str(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
