"""Shared memory that Triton's Python backend needs for a model, from its signature.

The backend's process of each version has one region, which grows and never shrinks. Measured with Triton 2.51: it
begins with 4 MiB and grows by whole MiB; up to two requests lie in it at once (inputs of the next one are copied while
answers of the last are sent); an allocation that no longer fits adds its own size, whatever is free. So a region stays
below two requests and the largest tensor: 4 clients with batches of 20 to 23 MiB made it 72 MiB.
"""

from __future__ import annotations

import math

from edgefolio.manifest import Signature, TensorSignature

_MEBIBYTE = 1 << 20
#: The region of a version before its first request.
_INITIAL_BYTES = 4 * _MEBIBYTE
#: Requests whose tensors lie in a region at the same time.
_REQUESTS = 2
_ELEMENT_BYTES = {
    "BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "BF16": 2,
    "INT32": 4, "UINT32": 4, "FP32": 4, "INT64": 8, "UINT64": 8, "FP64": 8,
}  # fmt: skip


def shared_memory_bytes(*, signature: Signature, batch: int, resident: int = 2) -> int:
    """Upper bound for requests of up to ``batch`` samples while ``resident`` versions are loaded.

    Two are loaded during a switch, old and new. A dynamic size counts as 1: its bound is not known.
    """
    tensors = [_tensor_bytes(tensor, batch=batch) for tensor in (*signature.inputs, *signature.outputs)]
    return resident * (_INITIAL_BYTES + _REQUESTS * sum(tensors) + max(tensors))


def largest_batch(*, signature: Signature, limit_bytes: int) -> int:
    """Samples of the largest request for which two versions fit into ``limit_bytes``, at least 1."""
    fits, too_many = 1, signature.max_batch_size + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if shared_memory_bytes(signature=signature, batch=middle) <= limit_bytes:
            fits = middle
        else:
            too_many = middle
    return fits


def _tensor_bytes(tensor: TensorSignature, *, batch: int) -> int:
    """Size of a tensor in whole MiB, as a region grows for it."""
    size = batch * math.prod(max(1, dimension) for dimension in tensor.shape) * _ELEMENT_BYTES[tensor.datatype]
    return (size // _MEBIBYTE + 1) * _MEBIBYTE
