"""Sessions of ONNX Runtime that share one allocator.

Each session has an arena of its own otherwise: those of a shard's segments and of the fallback would take what dividing
the model has saved.
"""

from __future__ import annotations

import threading
from typing import Any

import onnxruntime

__all__ = ["open_session"]

_lock = threading.Lock()
#: The allocator belongs to the process: it is registered once.
_is_shared = False


def open_session(model: bytes, *, threads: int) -> Any:
    """A session of the ONNX file ``model``. Raises whatever ONNX Runtime does: it has no common type."""
    _share_allocator()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # A spinning pool burns the cores that other segments and the fallback need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _share_allocator() -> None:
    global _is_shared
    with _lock:
        if _is_shared:
            return
        memory = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        # As much as is asked for, not the next power of two.
        arena = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
        onnxruntime.create_and_register_allocator(memory, arena)
        _is_shared = True
