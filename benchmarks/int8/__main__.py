"""Float, 7-bit and 8-bit forms of every candidate in a work directory of `edgefolio make`, by kind of processor.

    .venv/bin/edgefolio make -f benchmarks/int8/portfolio.yaml --work-dir WORK --repository REPOSITORY
    nice -n 15 .venv/bin/python -m benchmarks.int8 benchmarks/int8/portfolio.yaml WORK [--batch 32]

Writes ``benchmarks/results/int8.json`` and ``int8.md``. Times are the best of 15 runs in turns, one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from benchmarks.int8.kernels import KERNELS, prepare
from platformdirs import user_cache_path

from edgefolio.processor import this_processor
from edgefolio.specification.loading import load_portfolio
from edgefolio_pruner.inputs import load_source
from edgefolio_pruner.progress import no_progress
from edgefolio_pruner.quantization.calibration import activation_ranges
from edgefolio_pruner.quantization.qdq import load_float, quantized

RESULTS = Path(__file__).parents[1] / "results"
#: Disassembling ONNX Runtime takes a while.
KERNELS_FOLDER = user_cache_path("edgefolio") / f"kernels-{onnxruntime.__version__}"
SAMPLES = 2000


def main() -> None:
    """Measure all candidates and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portfolio", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    source = load_source(load_portfolio(arguments.portfolio), progress=no_progress)
    calibration = source.data.calibration(512, seed=source.seed)
    images, labels = source.data.test.images[:SAMPLES], source.data.test.labels[:SAMPLES]
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgefolio-int8-") as folder:
        place = Path(folder)
        prepare(KERNELS_FOLDER)
        np.save(place / "inputs.npy", images)
        # Of a candidate that was made several times the last one.
        records = sorted(arguments.work.glob("candidate-*.json"), key=lambda record: record.stat().st_mtime)
        for name, record in {json.loads(record.read_text())["value"]["name"]: record for record in records}.items():
            files = _forms(record.with_suffix("") / "model.onnx", calibration, place / name)
            rows += _measured(name, files, labels, place, batch=arguments.batch)
            print(json.dumps(rows[-1]), flush=True)
    document = {
        "command": f"python -m benchmarks.int8 benchmarks/int8/portfolio.yaml WORK --batch {arguments.batch}",
        "network": source.description,
        "data": source.data.name,
        "samples": len(images),
        "batch": arguments.batch,
        "processor": this_processor().model,
        "onnxruntime": onnxruntime.__version__,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "int8.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "int8.md").write_text(_as_markdown(document))


def _forms(path: Path, calibration: Any, folder: Path) -> dict[str, Path]:
    """The float file and its quantized forms: with weights of 7 bits, as the pruner makes them, and of 8."""
    model = load_float(path.read_bytes())
    ranges = activation_ranges(model, calibration, threads=1)
    folder.mkdir()
    files = {"float": path}
    for bits in (7, 8):
        files[f"{bits} bits"] = folder / f"{bits}.onnx"
        files[f"{bits} bits"].write_bytes(quantized(model, ranges, seven_bits=bits == 7))
    return files


def _measured(name: str, files: dict[str, Path], labels: Any, place: Path, *, batch: int) -> list[dict[str, Any]]:
    reference: Any = None
    rows = []
    for kernels, lacks in KERNELS.items():
        out = place / "out.npy"
        worker = [sys.executable, str(Path(__file__).with_name("worker.py")), str(KERNELS_FOLDER), str(lacks)]
        worker += [str(place / "inputs.npy"), str(out), str(batch), *map(str, files.values())]
        times = json.loads(subprocess.run(worker, check=True, capture_output=True, text=True).stdout)
        answers = np.load(out)
        reference = answers if reference is None else reference
        for position, (form, file) in enumerate(files.items()):
            rows.append(
                {
                    "candidate": name,
                    "form": form,
                    "kernels": kernels,
                    "accuracyPercent": round(100 * float((answers[position].argmax(axis=1) == labels).mean()), 2),
                    "milliseconds": round(times[position], 3),
                    "largestDifference": float(np.abs(answers[position] - reference[position]).max()),
                    "largestLogit": float(np.abs(reference[position]).max()),
                    "bytes": file.stat().st_size,
                }
            )
    return rows


def _as_markdown(document: dict[str, Any]) -> str:
    lines = [
        "# Quantized forms by kind of processor",
        "",
        f"{document['network']}, {document['data']}, {document['samples']} test samples, batch {document['batch']}, "
        f"one thread, {document['processor']}, ONNX Runtime {document['onnxruntime']}. The kernels of other processors "
        "are forced by hiding instruction sets from ONNX Runtime (`benchmarks/int8/kernels.py`); *difference* is the "
        "largest one of a logit from this processor's own kernels. Forcing shows which kernels run and what they "
        "answer; the clock, caches and units of such a processor it does not show. The machine may have been busy: "
        "compare times of the same kernels only.",
        "",
        f"Made with `{document['command']}`.",
        "",
        "| candidate | form | MB | kernels | accuracy, % | ms | difference |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    lines += [
        f"| {row['candidate']} | {row['form']} | {row['bytes'] / 1e6:.2f} | {row['kernels']} | "
        f"{row['accuracyPercent']:.2f} | {row['milliseconds']:.2f} | "
        f"{row['largestDifference']:.2g} of {row['largestLogit']:.3g} |"
        for row in document["rows"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
