"""Depthwise nets of timm, trained briefly on the digits at 16 x 16, and their quantized twins.

    nice -n 15 .venv/bin/python -m benchmarks.int8.depthwise [mobilenetv2_050 mobilenetv3_small_075 efficientnet_lite0]

Writes ``benchmarks/results/int8-depthwise.json`` and ``.md`` after each net. Trained weights are kept in the user's
cache. The first two strides are 1: the pictures are small.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import safetensors.torch
import sklearn.datasets
import timm
import torch
from benchmarks.int8.__main__ import RESULTS
from platformdirs import user_cache_path

from edgefolio.processor import this_processor
from edgefolio_pruner.export import export_onnx
from edgefolio_pruner.quantization import Twin, make_twin, outputs_of
from edgefolio_pruner.quantization.calibration import activation_ranges
from edgefolio_pruner.quantization.qdq import load_float, quantized

NETS = ("mobilenetv2_050", "mobilenetv3_small_075")
TRAINING, EPOCHS, BATCH, CALIBRATION = 1100, 12, 64, 512
BOUND_POINTS = 0.3


def main() -> None:
    """Train what is not trained, quantize, measure."""
    torch.set_num_threads(1)
    images, labels = digits()
    path = RESULTS / "int8-depthwise.json"
    rows: dict[str, Any] = json.loads(path.read_text())["rows"] if path.exists() else {}
    for name in sys.argv[1:] or NETS:
        net = trained(name, images[:TRAINING], labels[:TRAINING])
        rows[name] = measured(net, images.numpy(), labels.numpy())
        print(name, json.dumps(rows[name]), flush=True)
        document = {
            "command": "python -m benchmarks.int8.depthwise",
            "processor": this_processor().model,
            "onnxruntime": onnxruntime.__version__,
            "rows": rows,
        }
        path.write_text(json.dumps(document, indent=1) + "\n")
        path.with_suffix(".md").write_text(as_markdown(document))


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Scikit-learn's digits, twice as large, in random order."""
    found = sklearn.datasets.load_digits()
    images = torch.from_numpy(found.images.astype(np.float32)[:, None] / 16)
    images = torch.nn.functional.interpolate((images - images.mean()) / images.std(), scale_factor=2, mode="bilinear")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    return images[order], torch.from_numpy(found.target.astype(np.int64))[order]


def trained(name: str, images: torch.Tensor, labels: torch.Tensor) -> torch.nn.Module:
    """The network, trained or from the cache."""
    torch.manual_seed(0)
    net = timm.create_model(name, in_chans=1, num_classes=10)
    strided = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d) and module.stride == (2, 2)]
    for module in strided[:2]:
        module.stride = (1, 1)
    kept = user_cache_path("edgefolio") / "int8-depthwise" / f"{name}.safetensors"
    if kept.exists():
        net.load_state_dict(safetensors.torch.load_file(kept))
        return net.eval()
    steps = len(images) // BATCH
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=EPOCHS * steps)
    net.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    kept.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(net.state_dict(), kept)
    return net.eval()


def measured(net: torch.nn.Module, images: Any, labels: Any) -> dict[str, Any]:
    """Accuracy on what was not trained on, layers and time of the float net and its twin."""
    held_out, wanted, calibration = images[TRAINING:], labels[TRAINING:], images[:CALIBRATION]

    def accuracy(content: bytes) -> float:
        return 100 * float((outputs_of(content, held_out, threads=1).argmax(axis=1) == wanted).mean())

    with tempfile.TemporaryDirectory(prefix="edgefolio-int8-") as folder:
        path = Path(folder) / "float.onnx"
        export_onnx(net, (torch.from_numpy(images[:2]),), path, input_names=("input",), output_names=("output",))
        content = path.read_bytes()
    model = load_float(content)
    plain = quantized(model, activation_ranges(model, calibration, threads=1))
    twin = make_twin(
        content, calibration=calibration, accuracy_percent=accuracy, max_loss_points=BOUND_POINTS, threads=1
    )
    assert isinstance(twin, Twin), twin
    return {
        "floatPercent": accuracy(content),
        "plainPercent": accuracy(plain),
        "twinPercent": accuracy(twin.content),
        "equalized": twin.equalized,
        "int8Layers": len(twin.int8_layers),
        "floatLayers": [layer.name for layer in twin.float_layers],
        "bytes": [len(content), len(twin.content)],
        "milliseconds": [best_times((content, twin.content), images[:batch]) for batch in (1, 32)],
        "samples": len(held_out),
    }


def best_times(contents: tuple[bytes, ...], batch: Any) -> list[float]:
    """The shortest run of each file, of 30 in turns, in milliseconds: the machine may be shared."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]) for content in contents
    ]
    best = [float("inf")] * len(sessions)
    for _ in range(30):
        for position, session in enumerate(sessions):
            started = time.perf_counter()
            session.run(None, {"input": batch})
            best[position] = min(best[position], 1e3 * (time.perf_counter() - started))
    return best


def as_markdown(document: dict[str, Any]) -> str:
    """The table."""
    lines = [
        "# Depthwise nets, quantized",
        "",
        f"Nets of timm, {EPOCHS} epochs on {TRAINING} digits (16 x 16), accuracy on the others; the twin may lose "
        f"{BOUND_POINTS} points. *plain*: every layer quantized, not equalized. Times: best of 30, a batch of 1 and of "
        f"32, one thread, {document['processor']}, ONNX Runtime {document['onnxruntime']}. One seed.",
        "",
        f"Made with `{document['command']}`.",
        "",
        "| net | samples | float, % | plain, % | twin, % | layers on bytes, float | equalized | KB | ms |",
        "|---|--:|--:|--:|--:|--:|---|--:|--:|",
    ]
    for name, row in document["rows"].items():
        times = ", ".join(f"{parent:.2f} -> {own:.2f}" for parent, own in row["milliseconds"])
        lines.append(
            f"| {name} | {row['samples']} | {row['floatPercent']:.2f} | {row['plainPercent']:.2f} | "
            f"{row['twinPercent']:.2f} | {row['int8Layers']}, {len(row['floatLayers'])} | "
            f"{'yes' if row['equalized'] else 'no'} | {row['bytes'][0] / 1e3:.0f} -> {row['bytes'][1] / 1e3:.0f} | "
            f"{times} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
