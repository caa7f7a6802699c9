"""Latency of a split over two nodes through Triton, beside the whole net on one of them.

    python -m benchmarks.split.latency         # root, Linux; a machine that nothing else uses; about 15 minutes

Two network namespaces, one core and one thread each, certificates on, the wire at several rates (``tbf``: no delay is
added). One closed-loop client with batches of one, on the core of the node that it asks. The net is a plain stack of
convolutions with random weights, divided by channels, all maps exchanged: what a split costs and brings without any
pruning. Nothing here is trained or accurate, and no pruned variant of one node is among the rivals.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from benchmarks.split.results import RESULTS, headline, write
from demo.split.nodes import ADDRESSES, PORT, inside, serve, shape, two_nodes
from demo.split.process import Process
from demo.split.requests import FAILED, WRONG, client_command, requests_in, wait_for_answer

ROOT = Path(__file__).resolve().parents[2]
sys.path.extend(str(ROOT / "tests" / folder) for folder in ("shared", "triton"))

from served_splits import ServedSplit, served_split, whole_model  # noqa: E402
from split_portfolios import SPLIT, SPLIT_TAG, publish_split  # noqa: E402
from triton_portfolios import MODEL, images  # noqa: E402

from edgefolio_edge.peers.identity import make_identity  # noqa: E402
from edgefolio_split.executor import SplitExecutor  # noqa: E402

RATES = ("1gbit", "100mbit", "20mbit")
WIRES = ("Float32", "UInt8")
#: Tag of the whole net.
WHOLE_TAG = 3
#: Answers of one variant differ by less: only rounding does.
TOLERANCE = 0.01
#: Requests of a cell that are not counted: the first ones.
WARM = 50


def prepare(folder: Path, options: argparse.Namespace) -> dict[str, ServedSplit]:
    """A repository for each wire, identities, the set, the right answers."""
    net = {"width": options.width, "layers": options.layers, "size": options.size}
    values = images(1, seed=5, size=options.size)
    splits = {}
    for wire in WIRES:
        splits[wire] = split = served_split(tag=SPLIT_TAG, wire=wire, **net)
        whole = whole_model(tag=WHOLE_TAG, **net)
        publish_split(folder / wire, split, singles=[whole], size=options.size)
        session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
        answers = {
            str(SPLIT_TAG): SplitExecutor(split.plan, split.files.__getitem__).run(values).outputs[0],
            str(WHOLE_TAG): session.run(None, {"image": values})[0],
        }
        np.savez(folder / f"{wire}.npz", input=values[None], **{tag: found[None] for tag, found in answers.items()})
    for node in range(2):
        make_identity(folder / f"identity-{node}")
    workers = [
        {"rank": node, "address": f"{ADDRESSES[node]}:{PORT}", "certificate": f"identity-{node}/certificate.pem"}
        for node in range(2)
    ]
    # Far above any cell: here nobody falls back.
    document = {"number": 1, "workers": workers, "abandonMilliseconds": 10_000, "predictedMilliseconds": 5000}
    (folder / "set.yaml").write_text(json.dumps(document))
    return splits


def asked(folder: Path, grpc: str, wire: str, tag: int, *, requests: int, cores: list[int]) -> dict[str, Any]:
    """One cell's figures: milliseconds of the requests that ``tag`` answered."""
    lines = folder / "lines.txt"
    lines.unlink(missing_ok=True)
    client = client_command(
        grpc, lines, folder / f"{wire}.npz", model=MODEL, tensors=("image", "logits"), tolerance=TOLERANCE
    )
    with Process(0, client, cores, prefix=inside(0)):
        if tag == SPLIT_TAG and wait_for_answer(lines, str(tag), since=0, seconds=120) is None:
            raise TimeoutError("the split does not answer")
        while sum(each.by == str(tag) for each in requests_in(lines)) < requests + WARM:
            time.sleep(0.5)
    found = requests_in(lines)
    times = 1e3 * np.array([each.answered - each.sent for each in found if each.by == str(tag)][WARM:])
    low, middle, high = np.percentile(times, [50, 95, 99])
    return {
        "requests": len(times),
        "failed": sum(each.by == FAILED for each in found),
        "nobodys": sum(each.by == WRONG for each in found),
        "p50": round(float(low), 3),
        "p95": round(float(middle), 3),
        "p99": round(float(high), 3),
    }


def measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All cells, in turns: the whole net between the splits."""
    cores, results = sorted(os.sched_getaffinity(0))[:2], []
    for turn in range(options.turns):
        for wire in WIRES:
            alone = [sys.executable, "-m", "edgefolio.commands.main", "serve", "--repository", str(folder / wire)]
            alone += ["--model", MODEL, "--variant", "variant-1", "--grpc-port", "0", "--metrics-port", "0", "--json"]
            with Process(0, alone, cores, prefix=inside(0)) as single:
                grpc = single.wait_for("serving")["grpc"]
                found = asked(folder, grpc, wire, WHOLE_TAG, requests=options.requests, cores=cores)
            results.append({"turn": turn, "cell": "whole net on one node", **found})
            print(json.dumps(results[-1]), flush=True)
            for rate in RATES:
                for node in range(2):
                    shape(node, rate)
                workers = [
                    serve(
                        node,
                        repository=folder / wire,
                        set_file=folder / "set.yaml",
                        identity=folder / f"identity-{node}",
                        variant=SPLIT,
                        cores=cores,
                        model=MODEL,
                    )
                    for node in range(2)
                ]
                with workers[0] as first, workers[1]:
                    grpc = first.wait_for("serving")["grpc"]
                    found = asked(folder, grpc, wire, SPLIT_TAG, requests=options.requests, cores=cores)
                results.append({"turn": turn, "cell": f"split, {wire}, {rate}", **found})
                print(json.dumps(results[-1]), flush=True)
    return results


def markdown(document: dict[str, Any]) -> str:
    """The medians over the turns."""
    text = f"{document['net']}. Milliseconds, batch 1; of each figure the median over turns."
    rows = [
        *headline("Latency of a split without pruning, through Triton", document, text),
        "",
        "| cell | requests | failed | nobody's | p50 | p95 | p99 |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in dict.fromkeys(each["cell"] for each in document["cells"]):
        runs = [each for each in document["cells"] if each["cell"] == cell]
        counts = [sum(run[name] for run in runs) for name in ("requests", "failed", "nobodys")]
        times = [f"{np.median([run[name] for run in runs]):.2f}" for name in ("p50", "p95", "p99")]
        rows.append(f"| {cell} | {' | '.join(map(str, [*counts, *times]))} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Measure, and write the JSON and its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--requests", type=int, default=1000, help="Of each cell and turn.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--width", type=int, default=32, help="Channels of each worker.")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--size", type=int, default=32, help="Rows and columns of the maps.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgefolio-latency-") as name, two_nodes():
        folder = Path(name)
        splits = prepare(folder, options)
        cells = measure(folder, options)
    content = {
        "loadAverageAtTheEnd": round(os.getloadavg()[0], 1),
        "net": f"{options.layers} convolutions of {2 * options.width} channels on {options.size} x {options.size} maps",
        "bytesIn": {wire: [split.plan.bytes_into(rank) for rank in range(2)] for wire, split in splits.items()},
        "cells": cells,
    }
    command = " ".join(["python -m benchmarks.split.latency", *sys.argv[1:]])
    write(options.output, "split-latency", command=command, content=content, markdown=markdown)


if __name__ == "__main__":
    main()
