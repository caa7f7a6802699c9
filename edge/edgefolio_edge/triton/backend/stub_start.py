"""The start of a backend's stub, kept as cheap as it can be: a switch starts it anew, on the cores that serve.

Most of it is importing numpy and ONNX Runtime. Parts of numpy that are not used are imported lazily, and each step of
the start runs in a thread of lower priority, so that answers of the serving version come first. (Priority belongs to a
thread in Linux; to lower that of the whole process would need a privilege to raise it again.) Where the cores are so
busy that this takes long, the rest runs at normal priority: the switch may be what relieves them.

Standard library alone.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

#: Added to the niceness of the threads that import and load; 0 leaves it alone.
LOADING_NICENESS = int(os.environ.get("EDGEFOLIO_LOADING_NICENESS", "10"))
#: After this many seconds the rest of the start runs at normal priority.
PATIENCE_SECONDS = 0.3
_STARTED = time.monotonic()
_UNUSED_PARTS_OF_NUMPY = frozenset({"numpy.ctypeslib", "numpy.fft", "numpy.ma", "numpy.polynomial", "numpy.random"})


class _LazyParts:
    """An import hook that executes a part of numpy only on first access."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's specification with a lazy loader; ``None`` for all other modules."""
        if name not in _UNUSED_PARTS_OF_NUMPY:
            return None
        specification = importlib.machinery.PathFinder.find_spec(name, path, target)
        if specification is not None and specification.loader is not None:
            specification.loader = importlib.util.LazyLoader(specification.loader)
        return specification


class _Asyncio(types.ModuleType):
    """Stand-in for ``asyncio``, which the stub imports at the first request for ``iscoroutine`` alone.

    The real module costs 40 ms, for which the first request after each switch would wait; whoever asks for
    anything else gets it.
    """

    def __init__(self) -> None:
        super().__init__("asyncio")
        specification = importlib.machinery.PathFinder.find_spec("asyncio")
        self.__path__ = [] if specification is None else list(specification.submodule_search_locations or [])

    @staticmethod
    def iscoroutine(value: object) -> bool:
        """Whether ``value`` is a coroutine, as ``asyncio.iscoroutine`` says."""
        return isinstance(value, types.CoroutineType)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get("asyncio") is self:
            del sys.modules["asyncio"]
        return getattr(importlib.import_module("asyncio"), name)


def at_low_priority(work: Callable[[], None]) -> None:
    """Run ``work`` in a thread of lower priority and wait for it. Its exception is raised here."""
    if LOADING_NICENESS == 0 or time.monotonic() - _STARTED > PATIENCE_SECONDS:
        work()
        return
    failures: list[BaseException] = []

    def run() -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADING_NICENESS)
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _import_numpy() -> None:
    sys.meta_path.insert(0, _LazyParts)
    try:
        import numpy  # noqa: F401
    finally:
        sys.meta_path.remove(_LazyParts)


def _import_onnxruntime() -> None:
    import onnxruntime  # noqa: F401


def import_onnxruntime() -> None:
    """Import numpy and ONNX Runtime, which is most of a start, and stand in for ``asyncio``."""
    at_low_priority(_import_numpy)
    at_low_priority(_import_onnxruntime)
    sys.modules.setdefault("asyncio", _Asyncio())


def leave_the_cores() -> None:
    """Leave the cores to the version that took over: only cleanup is left."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 19)
