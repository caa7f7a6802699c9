"""Triton's ``onnxruntime`` backend where NVIDIA's C++ one is absent: ONNX Runtime inside the Python backend's stub.

It reads ``model.onnx`` and ``probe.json`` from the version's directory, and refuses to load a model whose answers to
the probe are not the expected ones: such a version never becomes ready, clients never see it.
"""

# This file runs inside the stub: it may import the standard library, numpy, onnxruntime, the stub's own module and
# what lies beside it.
from __future__ import annotations

import base64
import gc
import json
from pathlib import Path
from typing import Any

from stub_start import at_low_priority, import_onnxruntime, leave_the_cores

import_onnxruntime()

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402
from stub_process import bounded_threads, close_shared_memory, parameter  # noqa: E402


class TritonPythonModel:
    """One instance of one version."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load ``model.onnx`` and compare the probe. An exception makes Triton refuse the version."""
        close_shared_memory()
        configuration = json.loads(args["model_config"])
        directory = Path(pb_utils.get_model_dir())
        self.inputs = tuple(tensor["name"] for tensor in configuration["input"])
        self.outputs = tuple(tensor["name"] for tensor in configuration["output"])
        threads = bounded_threads(int(parameter(configuration, "intra_op_thread_count", "1")))

        def open_session() -> None:
            self.session = _open_session(directory / "model.onnx", threads=threads)

        # A pool's threads inherit the priority of the thread that starts them, and must serve at the normal one.
        if threads == 1:
            at_low_priority(open_session)
        else:
            open_session()
        at_low_priority(lambda: self._compare_probe(directory / "probe.json"))
        # Imports live as long as the process; the collector need not walk over them between requests.
        gc.collect()
        gc.freeze()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; a failing one gets an error and affects no other."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Leave the cores to the version that took over: only cleanup is left."""
        leave_the_cores()

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
