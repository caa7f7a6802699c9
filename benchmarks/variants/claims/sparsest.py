"""The sparsest variant against its sparse parent: the same weights, zeros and all, in the dense shape."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from benchmarks.variants.bench import Bench
from benchmarks.variants.published import portfolio
from benchmarks.variants.tables.rows import Row, ratio

CLAIM = "sparsest"


def rows(bench: Bench) -> tuple[Row, ...]:
    """Size and speed of the smallest file that is as accurate as the parent: float, or int8 if it is."""
    levels = portfolio(bench)["levels"]
    name, level = list(levels.items())[-1]
    parent = bench.store.folder / f"{name}-parent.onnx"
    module = bench.dense()
    module.load_state_dict(safetensors.torch.load_file(level["state"]))
    bench.export(module, parent)
    before = bench.accuracy(parent)
    files = {key: Path(path) for key, path in level["files"].items()}
    accuracies = {key: bench.accuracy(_own(bench, key, path)) for key, path in files.items()}
    able = [key for key in files if accuracies[key] >= before]
    if not able:
        return ()
    best = min(able, key=lambda key: files[key].stat().st_size)
    detail = {"variant": best, "parentAccuracy": before, "accuracies": accuracies}
    times = bench.times({"parent": parent, best: files[best]}, 32)
    speed, spread = ratio(times["parent"], times[best])
    common = {"claim": CLAIM, "net": bench.name, "seed": bench.seed, "detail": detail}
    size = parent.stat().st_size / files[best].stat().st_size
    return (
        Row(measure="size", value=size, **common),
        Row(measure="speed", value=speed, spread=spread, **common),
    )


def _own(bench: Bench, name: str, path: Path) -> Path:
    """The file under a name of its own: accuracies are kept by it."""
    own = bench.store.folder / f"level-{name}.onnx"
    own.write_bytes(path.read_bytes())
    return own
