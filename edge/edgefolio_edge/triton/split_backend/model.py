"""Triton's ``edgefolio`` backend: one worker of a split model, in the Python backend's stub.

It reads the plan, its shard and what they belong to from the version's directory, compares the probe of every segment,
opens the fallback, and is ready; its peers it finds by the set file that the agent writes. Until they are linked, and
whenever they are not, the fallback answers.
"""

# This file runs inside the stub: it may import the standard library, numpy, onnxruntime, the stub's own module and
# what lies beside it: the package edgefolio_worker is copied there.
from __future__ import annotations

import gc
import json
import logging
import os
from pathlib import Path
from typing import Any

from stub_start import at_low_priority, import_onnxruntime, leave_the_cores

import_onnxruntime()

import triton_python_backend_utils as pb_utils  # noqa: E402
from stub_process import bounded_threads, close_shared_memory, parameter  # noqa: E402

from edgefolio_worker.serving.worker import Places, Worker  # noqa: E402

#: The folder of the set file and of the status; without it the worker never joins a set.
ORDERS = "EDGEFOLIO_WORKER_FOLDER"


class TritonPythonModel:
    """The one instance of one version."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open shard and fallback; waits for no peer. An exception makes Triton refuse the version."""
        close_shared_memory()
        log = logging.getLogger("edgefolio_worker")
        log.addHandler(_TritonLog())
        log.propagate = False
        configuration = json.loads(args["model_config"])
        (self.input,) = (tensor["name"] for tensor in configuration["input"])
        self.outputs = tuple(tensor["name"] for tensor in configuration["output"])
        threads = bounded_threads(int(parameter(configuration, "intra_op_thread_count", "1")))
        folder = Path(pb_utils.get_model_dir())
        orders = os.environ.get(ORDERS)
        places = Places(
            model_folder=folder.parent,
            version=int(args["model_version"]),
            orders=Path(orders) if orders else None,
        )

        def open_worker() -> None:
            self.worker = Worker(
                places,
                input_name=self.input,
                output_names=self.outputs,
                max_samples=max(1, int(configuration.get("max_batch_size", 0))),
                threads=threads,
            )

        # A pool's threads inherit the priority of the thread that starts them, and must serve at the normal one.
        if threads == 1:
            at_low_priority(open_worker)
        else:
            open_worker()
        self.worker.start()
        # Imports live as long as the process; the collector need not walk over them between requests.
        gc.collect()
        gc.freeze()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; a failing one gets an error and affects no other."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Say BYE to the peers, and leave the cores to the version that took over."""
        self.worker.close()
        leave_the_cores()

    def _answer(self, request: Any) -> Any:
        try:
            values = pb_utils.get_input_tensor_by_name(request, self.input).as_numpy()
            wanted = [name for name in self.outputs if name in request.requested_output_names()] or list(self.outputs)
            answers = self.worker.answer(values, wanted)
            tensors = [pb_utils.Tensor(name, answers[name]) for name in wanted]
            return pb_utils.InferenceResponse(output_tensors=tensors)
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{type(error).__name__}: {error}"))


class _TritonLog(logging.Handler):
    """Writes what the worker says into Triton's log, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        text = " ".join(f"edgefolio: {self.format(record)}".split())[:1000]
        write = pb_utils.Logger.log_error if record.levelno >= logging.ERROR else pb_utils.Logger.log_warn
        write(text)
