"""The exporter's table of operators, built once for a process: the same for every export, and a good part of its time.

torch builds it anew in each call, from the signatures of all its functions. Its maker is torch's own affair: where it
is not found as it is known here, exports are what they were, only slower.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["kept_registry"]

_MODULE = "torch.onnx._internal.exporter._registration"
_built: dict[Any, Any] = {}


@contextlib.contextmanager
def kept_registry() -> Iterator[None]:
    """Within it the exporter is given the table that was built before for the same operator set.

    Nothing may register operators of its own within it.
    """
    try:
        holder = importlib.import_module(_MODULE).ONNXRegistry
        original = vars(holder)["from_torchlib"]
    except (ImportError, AttributeError, KeyError):
        yield
        return

    def from_torchlib(opset_version: Any = None, **others: Any) -> Any:
        if opset_version is None or others:
            return original.__get__(None, holder)(**others)
        # Operators of torchvision are in the table once it is imported.
        key = (opset_version, "torchvision" in sys.modules)
        if key not in _built:
            _built[key] = original.__get__(None, holder)(opset_version=opset_version)
        return _built[key]

    holder.from_torchlib = staticmethod(from_torchlib)
    try:
        yield
    finally:
        holder.from_torchlib = original
