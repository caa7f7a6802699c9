"""An onnxruntime session on the CPU. Imports nothing else, since imports count as memory in a profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime


def open_session(path: Path | str | bytes, *, threads: int, spinning: bool = True) -> Any:
    """A session of a file, or of its bytes, with ``threads`` threads, which spin while they wait if ``spinning``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        path if isinstance(path, bytes) else str(path), options, providers=["CPUExecutionProvider"]
    )
