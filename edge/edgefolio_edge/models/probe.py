"""Probe of a variant: inputs and outputs that the backend compares while it loads, and the agent in its canary."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefolio.manifest import Manifest, Probe, Tensor, TensorSignature, Variant

#: Little-endian element types by the names of the KServe protocol. Probes hold BF16 as the float32 it rounds to.
_ELEMENT_TYPES = {
    "BOOL": "|b1",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "BF16": "<f4",
}


def probe_inputs(manifest: Manifest, probe: Probe) -> dict[str, NDArray[Any]]:
    """The inputs as arrays, in the element types of the signature."""
    return {
        tensor.name: _array(tensor, _element_type(tensor.name, manifest.signature.inputs)) for tensor in probe.inputs
    }


def batch_of(manifest: Manifest, probe: Probe, *, samples: int) -> dict[str, NDArray[Any]]:
    """The probe's samples repeated to a batch of ``samples``, the size of the users' requests."""
    wanted = min(samples, manifest.signature.max_batch_size)
    repeated = {}
    for name, values in probe_inputs(manifest, probe).items():
        times = -(-wanted // len(values))
        repeated[name] = np.concatenate([values] * times)[:wanted]
    return repeated


def mismatch(probe: Probe, answers: Mapping[str, NDArray[Any]]) -> str | None:
    """How ``answers`` differ from the probe's outputs, as text; ``None`` if they are within its tolerance."""
    for expected in probe.outputs:
        answer = answers.get(expected.name)
        if answer is None:
            return f"output {expected.name!r} is missing"
        if answer.shape != expected.shape:
            return f"output {expected.name!r} has shape {answer.shape}, not {expected.shape}"
        wanted = np.array(expected.values, dtype=np.float64).reshape(expected.shape)
        difference = float(np.abs(answer.astype(np.float64) - wanted).max(initial=0.0))
        # A NaN compares as false and is a mismatch, too.
        if not difference <= probe.absolute_tolerance:
            return (
                f"output {expected.name!r} differs by {difference:.6g}, the tolerance is {probe.absolute_tolerance:.6g}"
            )
    return None


def backend_probe(manifest: Manifest, variant: Variant) -> bytes:
    """The variant's ``probe.json``: tensors as base64, because the backend reads it anew at each switch."""
    probe = variant.probe
    document = {
        "inputs": [_encoded(tensor, manifest.signature.inputs) for tensor in probe.inputs],
        "outputs": [_encoded(tensor, manifest.signature.outputs) for tensor in probe.outputs],
        "absoluteTolerance": probe.absolute_tolerance,
        "requestBatchSize": min(manifest.request_batch_size, manifest.signature.max_batch_size),
    }
    return json.dumps(document, sort_keys=True).encode()


def _encoded(tensor: Tensor, signature: tuple[TensorSignature, ...]) -> dict[str, Any]:
    element_type = _element_type(tensor.name, signature)
    raw = _array(tensor, element_type).tobytes()
    return {
        "name": tensor.name,
        "dtype": element_type,
        "shape": list(tensor.shape),
        "data": base64.b64encode(raw).decode(),
    }


def _array(tensor: Tensor, element_type: str) -> NDArray[Any]:
    return np.array(tensor.values, dtype=np.float64).astype(element_type).reshape(tensor.shape)


def _element_type(name: str, signature: tuple[TensorSignature, ...]) -> str:
    # A probe may name an output that the signature lacks; the comparison says so, here any type will do.
    datatype = next((tensor.datatype for tensor in signature if tensor.name == name), "FP32")
    return _ELEMENT_TYPES[datatype]
