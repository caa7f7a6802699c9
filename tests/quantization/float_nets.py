"""Small float models with generated weights, as the exporter writes them: opset 18, dynamic batch, no batch norms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgefolio_pruner.quantization.sensitivity import outputs_of

SIZE, CLASSES = 10, 5


class Net:
    """A model that grows layer by layer."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self.value, self.channels = "input", 1
        self._sizes: npt.NDArray[np.float64] = np.ones(1)

    def conv(self, channels: int, *, kernel: int = 3, depthwise: bool = False, spread: float = 1.0) -> Net:
        """A convolution; its output channels are smaller by up to ``spread``, which the next convolution takes back."""
        inputs = 1 if depthwise else self.channels
        weights = self._random.normal(size=(channels, inputs, kernel, kernel)) / np.sqrt(inputs * kernel**2 / 2)
        weights /= self._sizes.reshape((-1, 1, 1, 1) if depthwise else (1, -1, 1, 1))
        self._sizes = self._random.permutation(np.geomspace(1 / spread, 1, channels))
        return self._add(
            "Conv",
            {
                "weight": weights * self._sizes.reshape(-1, 1, 1, 1),
                "bias": self._random.normal(size=channels) * 0.1 * self._sizes,
            },
            channels,
            group=channels if depthwise else 1,
            pads=[kernel // 2] * 4,
        )

    def operator(self, name: str, **attributes: object) -> Net:
        """An operator without weights."""
        return self._add(name, {}, self.channels, **attributes)

    def clip(self, highest: float) -> Net:
        """ReLU6, with another bound."""
        bounds = [self._constant("low", np.float32(0)), self._constant("high", np.float32(highest))]
        return self._add("Clip", {}, self.channels, inputs=bounds)

    def add(self, other: str) -> Net:
        """A residual sum with an earlier value."""
        return self._add("Add", {}, self.channels, inputs=[other])

    def classifier(self) -> Net:
        """Pooling and a linear layer."""
        self.operator("GlobalAveragePool").operator("Flatten")
        weights = {
            "weight": self._random.normal(size=(CLASSES, self.channels)) / np.sqrt(self.channels),
            "bias": self._random.normal(size=CLASSES) * 0.1,
        }
        return self._add("Gemm", weights, CLASSES, transB=1)

    def content(self, *, classes: int = CLASSES) -> bytes:
        """The file."""
        self._nodes[-1].output[0] = "output"
        graph = helper.make_graph(
            self._nodes,
            "model",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, SIZE, SIZE])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", classes])],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    def _constant(self, name: str, value: npt.NDArray[np.float64] | np.float32) -> str:
        name = f"{name}{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
        return name

    def _add(
        self,
        operator: str,
        weights: dict[str, npt.NDArray[np.float64]],
        channels: int,
        *,
        inputs: list[str] | None = None,
        **attributes: object,
    ) -> Net:
        names = [self._constant(name, value) for name, value in weights.items()]
        output = f"value{len(self._nodes)}"
        name = f"{operator.lower()}{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(operator, [self.value, *names, *(inputs or [])], [output], name=name, **attributes)
        )
        self.value, self.channels = output, channels
        return self


def plain_net(seed: int = 0) -> bytes:
    """Three convolutions, one of them in a residual branch."""
    net = Net(seed).conv(8).operator("Relu")
    stream = net.value
    return net.conv(8).operator("Relu").conv(8).add(stream).operator("Relu").classifier().content()


def depthwise_net(seed: int = 0, *, spread: float = 1.0, bound: float | None = None) -> bytes:
    """Two blocks of MobileNetV2; ``spread`` is how far the sizes of their channels lie apart."""
    net = Net(seed).conv(8).operator("Relu")
    for _ in range(2):
        for depthwise in (False, True):
            net.conv(24, kernel=3 if depthwise else 1, depthwise=depthwise, spread=spread)
            net.operator("Relu") if bound is None else net.clip(bound)
        net.conv(8, kernel=1)
    return net.classifier().content()


def samples(count: int = 96, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Unlabelled samples."""
    return np.random.default_rng(seed).standard_normal((count, 1, SIZE, SIZE), dtype=np.float32)


def agreement_with(content: bytes, count: int = 400) -> Callable[[bytes], float]:
    """An accuracy in percent whose labels are the answers of ``content`` itself.

    The answers are counted from their mean: weights that were never trained prefer one class for all samples.
    """
    held_out = samples(count, seed=1)
    answers = outputs_of(content, held_out, threads=1)
    mean = answers.mean(axis=0)
    labels = np.argmax(answers - mean, axis=1)

    def accuracy(candidate: bytes) -> float:
        found = outputs_of(candidate, held_out, threads=1)
        right = (np.argmax(found - mean, axis=1) == labels) & np.isfinite(found).all(axis=1)
        return 100 * float(right.mean())

    return accuracy
