"""A backend as one writes it first, for comparison: no probe, and nothing that makes its start cheap."""

from __future__ import annotations

import os
from typing import Any

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of one version."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load the model."""
        path = os.path.join(pb_utils.get_model_dir(), "model.onnx")  # noqa: PTH118
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        responses = []
        for request in requests:
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            (logits,) = self.session.run(None, {"image": image})
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("logits", logits)]))
        return responses
