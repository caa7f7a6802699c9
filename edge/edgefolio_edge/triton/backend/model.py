"""Triton's ``onnxruntime`` backend where NVIDIA's C++ one is absent: ONNX Runtime inside the Python backend's stub.

It reads ``model.onnx`` and ``probe.json`` from the version's directory, and refuses to load a model whose answers to
the probe are not the expected ones: such a version never becomes ready, clients never see it.

A switch starts this process anew, on the cores that serve: its start is kept as cheap as it can be. Most of it is
importing numpy and ONNX Runtime. Parts of numpy that are not used are imported lazily, and each step of the start runs
in a thread of lower priority, so that answers of the serving version come first. (Priority belongs to a thread in
Linux; to lower that of the whole process would need a privilege to raise it again.) Where the cores are so busy that
this takes long, the rest runs at normal priority: the switch may be what relieves them.
"""

# This file runs inside the stub: it may import the standard library, numpy, onnxruntime and the stub's own module.
from __future__ import annotations

import base64
import contextlib
import gc
import importlib.machinery
import importlib.util
import json
import math
import os
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
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


def _at_low_priority(work: Callable[[], None]) -> None:
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


_at_low_priority(_import_numpy)
_at_low_priority(_import_onnxruntime)
sys.modules.setdefault("asyncio", _Asyncio())

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402


class TritonPythonModel:
    """One instance of one version."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load ``model.onnx`` and compare the probe. An exception makes Triton refuse the version."""
        _close_shared_memory()
        configuration = json.loads(args["model_config"])
        directory = Path(pb_utils.get_model_dir())
        self.inputs = tuple(tensor["name"] for tensor in configuration["input"])
        self.outputs = tuple(tensor["name"] for tensor in configuration["output"])
        threads = _bounded(int(_parameter(configuration, "intra_op_thread_count", "1")))

        def open_session() -> None:
            self.session = _open_session(directory / "model.onnx", threads=threads)

        # A pool's threads inherit the priority of the thread that starts them, and must serve at the normal one.
        if threads == 1:
            _at_low_priority(open_session)
        else:
            open_session()
        _at_low_priority(lambda: self._compare_probe(directory / "probe.json"))
        # Imports live as long as the process; the collector need not walk over them between requests.
        gc.collect()
        gc.freeze()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; a failing one gets an error and affects no other."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Leave the cores to the version that took over: only cleanup is left."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 19)

    def _answer(self, request: Any) -> Any:
        try:
            feed = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            wanted = [name for name in self.outputs if name in request.requested_output_names()] or list(self.outputs)
            values = self.session.run(wanted, feed)
            tensors = [pb_utils.Tensor(name, value) for name, value in zip(wanted, values, strict=True)]
            return pb_utils.InferenceResponse(output_tensors=tensors)
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{type(error).__name__}: {error}"))

    def _compare_probe(self, path: Path) -> None:
        try:
            probe = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise RuntimeError("there is no probe beside the model, so nothing proves its answers") from None
        names = [tensor["name"] for tensor in probe["outputs"]]
        feed = {tensor["name"]: _array(tensor) for tensor in probe["inputs"]}
        answers = self.session.run(names, feed)
        for tensor, answer in zip(probe["outputs"], answers, strict=True):
            expected = _array(tensor)
            if answer.shape != expected.shape:
                raise RuntimeError(f"probe: output {tensor['name']} has shape {answer.shape}, not {expected.shape}")
            difference = float(np.abs(answer.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
            # A NaN compares as false and is refused, too.
            if not difference <= probe["absoluteTolerance"]:
                raise RuntimeError(
                    f"probe: output {tensor['name']} differs by {difference:.6g}, "
                    f"the tolerance is {probe['absoluteTolerance']:.6g}"
                )
        # One request of the users' size: the memory it needs is allocated before their first one comes.
        self.session.run(names, {name: _repeated(values, probe["requestBatchSize"]) for name, values in feed.items()})


def _close_shared_memory() -> None:
    """Let this user alone read the tensors of requests: Triton makes its regions readable for all, whatever the umask.

    The command line of this process names its region.
    """
    for argument in os.fsdecode(Path("/proc/self/cmdline").read_bytes()).split("\0"):
        name = argument.removeprefix("/")
        with contextlib.suppress(OSError):
            if "/" not in name and (region := Path("/dev/shm", name)).is_file():
                region.chmod(0o600)


def _bounded(threads: int) -> int:
    """At most one thread for each core that this process may use: more would take turns on them, and answer later.

    The kubelet's static CPU manager, and limits, bind at each load anew: both may change while the server runs.
    """
    return max(1, math.ceil(min(threads, len(os.sched_getaffinity(0)), _quota())))


def _quota() -> float:
    """Cores that the tightest of the cgroups around this process grants; infinite where none has a limit."""
    root, found = Path("/sys/fs/cgroup"), math.inf
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" and not controllers:
                folder, names = root, "cpu.max"
            elif "cpu" in controllers.split(","):
                folder, names = root / "cpu", "cpu.cfs_quota_us cpu.cfs_period_us"
            else:
                continue
            # In a container the path of the host may not exist: then the root is its group.
            group = folder / path.lstrip("/")
            for place in (group, *group.parents[: len(group.relative_to(folder).parts)]):
                found = min(found, _granted(place, names))
    return found


def _granted(group: Path, names: str) -> float:
    try:
        quota, period = " ".join((group / name).read_text() for name in names.split()).split()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf  # "max" means no limit


def _open_session(path: Path, *, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # A spinning pool burns the cores that other instances need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _array(tensor: dict[str, Any]) -> Any:
    raw = base64.b64decode(tensor["data"])
    return np.frombuffer(raw, dtype=tensor["dtype"]).reshape(tensor["shape"])


def _repeated(values: Any, samples: int) -> Any:
    return np.concatenate([values] * -(-samples // len(values)))[:samples]


def _parameter(configuration: dict[str, Any], name: str, default: str) -> str:
    value: str = configuration.get("parameters", {}).get(name, {}).get("string_value", default)
    return value
