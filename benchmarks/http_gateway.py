"""What the HTTP gateway costs: one request over gRPC, through the gateway, and over Triton's own HTTP, in turns.

    .venv-edge/bin/python -m benchmarks.http_gateway          # about two minutes

Two servers of one small model: one with the gateway, one with Triton's own HTTP. One closed-loop client, batches of
1 and 64 samples of 784 numbers, tensors as bytes and as JSON. In each round every way is asked equally often.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# The nets are those of the tests.
sys.path.extend(str(ROOT / "tests" / folder) for folder in ("shared", "triton"))

from triton_portfolios import MODEL, publish, revealing_model  # noqa: E402
from triton_site import FREE_PORTS, open_site  # noqa: E402

from edgefolio_edge.triton.launcher import server as launcher  # noqa: E402
from edgefolio_edge.triton.launcher.ports import Ports, settle_ports  # noqa: E402

SIZE = 28
ROUNDS, REQUESTS = 12, 60
WAYS = ("gRPC", "gateway", "Triton's HTTP")


def request_of(module: Any, endpoint: str, images: Any, *, binary: bool) -> Callable[[], Any]:
    """A function that asks once."""
    client = module.InferenceServerClient(endpoint)
    tensor = module.InferInput("image", list(images.shape), "FP32")
    if module is triton_http:
        tensor.set_data_from_numpy(images, binary_data=binary)
        outputs = [module.InferRequestedOutput("logits", binary_data=binary)]
    else:
        tensor.set_data_from_numpy(images)
        outputs = [module.InferRequestedOutput("logits")]
    return lambda: client.infer(MODEL, [tensor], outputs=outputs).as_numpy("logits")


def measured(ask: dict[str, Callable[[], Any]], expected: Any) -> dict[str, list[float]]:
    """Medians of milliseconds, one a round, of each way; the ways take turns."""
    found: dict[str, list[float]] = {way: [] for way in ask}
    for _ in range(ROUNDS):
        for way, call in ask.items():
            taken = []
            for _ in range(REQUESTS):
                started = time.perf_counter()
                answer = call()
                taken.append(1000 * (time.perf_counter() - started))
            np.testing.assert_allclose(answer, expected, rtol=1e-5)
            found[way].append(statistics.median(taken))
    return found


def with_own_http(port: int) -> Any:
    """A patch of the launcher: Triton serves HTTP itself."""
    plain = launcher.arguments

    def arguments(*given: Any, **named: Any) -> list[str]:
        options = [option for option in plain(*given, **named) if not option.startswith("--allow-http")]
        return [
            *options,
            "--allow-http=true",
            "--http-address=127.0.0.1",
            f"--http-port={port}",
            "--http-thread-count=4",
        ]

    return mock.patch.object(launcher, "arguments", arguments)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for http-gateway.json and .md")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        repository = folder / "repository"
        manifest = publish(repository, [revealing_model(1, size=SIZE)], size=SIZE)
        own = settle_ports(FREE_PORTS, address="127.0.0.1").http
        assert own is not None
        opened = contextlib.contextmanager(open_site)
        with contextlib.ExitStack() as stack:
            site = stack.enter_context(opened(folder / "gateway", manifest, repository))
            with with_own_http(own):
                ports = Ports(grpc=0, metrics=0)
                other = stack.enter_context(opened(folder / "own", manifest, repository, ports=ports))
            for each in (site, other):
                each.serve(1)
            for batch, binary in itertools.product((1, 64), (True, False)):
                images = np.random.default_rng(0).normal(size=(batch, 1, SIZE, SIZE)).astype(np.float32)
                expected = site.control.infer(MODEL, {"image": images}).outputs["logits"]
                http = {"gateway": str(site.server.http_endpoint), "Triton's HTTP": f"127.0.0.1:{own}"}
                ask = {"gRPC": request_of(triton_grpc, site.server.grpc_endpoint, images, binary=True)}
                ask |= {way: request_of(triton_http, place, images, binary=binary) for way, place in http.items()}
                rows.append(
                    {"batch": batch, "tensors": "bytes" if binary else "JSON", "medians": measured(ask, expected)}
                )
    document = {
        "command": "python -m benchmarks.http_gateway",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip(),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "logicalCpus": os.cpu_count(),
            "python": platform.python_version(),
            "packages": {name: version(name) for name in ("aiohttp", "grpcio", "tritonclient", "numpy")},
            "loadAverageBefore": round(load_before, 2),
        },
        "rounds": ROUNDS,
        "requestsEachRound": REQUESTS,
        "rows": rows,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "http-gateway.json").write_text(json.dumps(document, indent=1) + "\n")
    text = table(document)
    (options.results / "http-gateway.md").write_text(text)
    print(text)


def table(document: dict[str, Any]) -> str:
    """The page of the results."""
    machine = document["machine"]
    lines = [
        "# What the HTTP gateway costs",
        "",
        f"`{document['command']}` at {document['commit']}: {machine['logicalCpus']} processors, load average before "
        f"{machine['loadAverageBefore']}. Milliseconds of a request, median of {document['rounds']} rounds' medians "
        f"(lowest and highest round); {document['requestsEachRound']} requests a round and way, in turns, one client. "
        "The rows of JSON have gRPC's bytes beside them.",
        "",
        f"| samples | tensors | {' | '.join(WAYS)} | gateway - gRPC |",
        f"|---|---|{'---|' * len(WAYS)}---|",
    ]
    for row in document["rows"]:
        found = row["medians"]
        cells = [
            f"{statistics.median(found[way]):.2f} ({min(found[way]):.2f} to {max(found[way]):.2f})" for way in WAYS
        ]
        extra = statistics.median(a - b for a, b in zip(found["gateway"], found["gRPC"], strict=True))
        lines.append(f"| {row['batch']} | {row['tensors']} | {' | '.join(cells)} | {extra:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
