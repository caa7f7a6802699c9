"""int8 twins of float files, as `edgefolio make` builds them, and by ONNX Runtime's quantizer alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.variants.bench import Bench
from benchmarks.variants.peers.onnxruntime_quantizer import quantize
from benchmarks.variants.store import PRODUCT

from edgefolio.files import write_durably
from edgefolio.repository.fetching import digest_of_file
from edgefolio_pruner.profiling.accuracy import measure_accuracy
from edgefolio_pruner.quantization import Refusal, make_twin

Json = dict[str, Any]
#: The default of ``methods.quantization.maxAccuracyLossPoints``.
MOST_LOSS_POINTS = 0.3


def twin(bench: Bench, parent: Path) -> Path | None:
    """The twin's file; None where the float file has none (the record beside it says why)."""
    path = parent.with_name(f"{parent.stem}-int8.onnx")
    found = bench.store.stage(
        path.stem,
        lambda: _made(bench, parent, path),
        code=PRODUCT,
        parent=digest_of_file(parent),
        mostLossPoints=MOST_LOSS_POINTS,
    )
    return None if "refused" in found else path


def twin_record(bench: Bench, parent: Path) -> Json:
    """What is known of the twin: its float layers, its loss on validation, or why there is none."""
    twin(bench, parent)
    path = parent.with_name(f"{parent.stem}-int8.onnx")
    return bench.store.stage(
        path.stem, dict, code=PRODUCT, parent=digest_of_file(parent), mostLossPoints=MOST_LOSS_POINTS
    )


def alone(bench: Bench, parent: Path) -> Path:
    """The file by ONNX Runtime's quantizer alone, on the same samples."""
    path = parent.with_name(f"{parent.stem}-onnxruntime.onnx")

    def work() -> Json:
        quantize(parent, path, bench.calibration.numpy())
        return {"sha256": digest_of_file(path)}

    bench.store.stage(path.stem, work, code=("benchmarks/variants/peers",), parent=digest_of_file(parent))
    return path


def _made(bench: Bench, parent: Path, path: Path) -> Json:
    validation = bench.data.validation

    def accuracy(content: bytes) -> float:
        with tempfile.NamedTemporaryFile(prefix="edgefolio-variants-", suffix=".onnx") as file:
            file.write(content)
            file.flush()
            return float(measure_accuracy(Path(file.name), validation.images, validation.labels, threads=1).percent)

    made = make_twin(
        parent.read_bytes(),
        calibration=bench.calibration.numpy(),
        accuracy_percent=accuracy,
        max_loss_points=MOST_LOSS_POINTS,
        threads=1,
    )
    if isinstance(made, Refusal):
        return {"refused": made.reason}
    write_durably(path, made.content, field="--work-dir")
    return {"floatLayers": [layer.name for layer in made.float_layers], "validationLoss": made.loss_points}
