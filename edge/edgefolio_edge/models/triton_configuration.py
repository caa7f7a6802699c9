"""A model's Triton configuration, generated from its verified manifest and from nothing else.

A configuration can name a backend that runs code, so none is ever taken from a repository.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from edgefolio.manifest import Manifest, TensorSignature

#: Name of our Python-based backend. NVIDIA's C++ one has the same, so models and configurations fit both.
BACKEND = "onnxruntime"
#: Name of our other one, for workers of splits. NVIDIA has none of this name.
SPLIT_BACKEND = "edgefolio"


def configuration_of(
    manifest: Manifest,
    *,
    model_name: str,
    threads: int,
    versions: Iterable[int],
    warm_up: bool = False,
    largest_batch: int | None = None,
    is_split: bool = False,
) -> ModelConfig:
    """The configuration of ``model_name`` with exactly ``versions`` served.

    ``threads`` per model instance. ``warm_up`` makes Triton run one batch of zeros before a version becomes ready: for
    backends that, unlike ours, compare no probe while loading. Triton refuses requests of more than ``largest_batch``
    samples, where that is less than the model's own bound. ``is_split``: the versions are splits. One load has one
    backend.
    """
    signature = manifest.signature
    max_batch_size = min(signature.max_batch_size, largest_batch or signature.max_batch_size)
    configuration: dict[str, Any] = {
        "name": model_name,
        "backend": SPLIT_BACKEND if is_split else BACKEND,
        "max_batch_size": max_batch_size,
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
                "batch_size": min(manifest.request_batch_size, max_batch_size),
                "inputs": inputs,
            }
        ]
    return json_format.ParseDict(configuration, ModelConfig())


def as_json(configuration: ModelConfig) -> str:
    """The form that a load request carries."""
    return str(json_format.MessageToJson(configuration, preserving_proto_field_name=True, indent=None))


def as_text(configuration: ModelConfig) -> str:
    """The form that ``config.pbtxt`` has (protocol buffers' text format)."""
    return str(text_format.MessageToString(configuration))


def is_text_of(text: bytes, configuration: ModelConfig) -> bool:
    """Whether ``text`` is equivalent to ``configuration``, in any order and form."""
    try:
        return bool(text_format.Parse(text, ModelConfig()) == configuration)
    except (text_format.ParseError, ValueError):
        return False


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
