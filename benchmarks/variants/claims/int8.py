"""The int8 twin of the dense model: time and loss, beside ONNX Runtime's quantizer alone."""

from __future__ import annotations

from benchmarks.variants.bench import ROUNDS, Bench
from benchmarks.variants.tables.rows import Row, ratio
from benchmarks.variants.twins import alone, twin_record

CLAIM = "int8"


def rows(bench: Bench) -> tuple[Row, ...]:
    """Loss on test, size, and speed at every batch size, of the twin and of the peer's file."""
    dense = bench.dense_file
    record = twin_record(bench, dense)
    files = {"dense": dense, "onnxruntime": alone(bench, dense)}
    if "refused" not in record:
        files["twin"] = dense.with_name(f"{dense.stem}-int8.onnx")
    accuracies = {name: bench.accuracy(path) for name, path in files.items()}
    times = {batch: bench.times(files, batch) for batch in ROUNDS}
    found = []
    for name in files:
        if name == "dense":
            continue
        ending = "" if name == "twin" else "-onnxruntime"
        measures: dict[str, tuple[float, tuple[float, float] | None]] = {
            f"loss{ending}": (accuracies["dense"] - accuracies[name], None),
            f"size{ending}": (dense.stat().st_size / files[name].stat().st_size, None),
        }
        for batch, seconds in times.items():
            word = "speed" if batch == 32 else f"speed-{batch}"
            measures[f"{word}{ending}"] = ratio(seconds["dense"], seconds[name])
        detail = {"dense": accuracies["dense"], "accuracy": accuracies[name]}
        if name == "twin":
            detail |= {"floatLayers": len(record["floatLayers"])}
        found += [
            Row(claim=CLAIM, measure=key, net=bench.name, seed=bench.seed, value=value, spread=spread, detail=detail)
            for key, (value, spread) in measures.items()
        ]
    return tuple(found)
