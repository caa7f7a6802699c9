"""Clients that measure: fixed-rate and closed-loop, over gRPC and HTTP, in a process of their own.

Every answer is checked: the version that it states must be the version whose weights computed it. The outputs that
each version gives for the request batches were computed beforehand with ONNX Runtime in this process's input file.

    python -m demo.clients PLAN.json INPUTS.npz RECORDS.jsonl
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import numpy.typing
import tritonclient.grpc
import tritonclient.http

FloatArray = numpy.typing.NDArray[numpy.float32]

#: A client gives up a request after this long; it then counts as failed.
TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class ClientPlan:
    """Where to send what, for how long. ``fixed_rate`` is requests per second of each fixed-rate client."""

    grpc_address: str
    http_address: str
    model: str
    input_name: str
    output_name: str
    seconds: float
    fixed_rate: float
    think_seconds: float
    tolerance: float
    cpus: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One request: when it was due (seconds from the start), how long it took, and what answered.

    The latency of a fixed-rate request counts from the instant it was due, so that a stalled server is not flattered by
    requests that were never sent (coordinated omission).
    """

    client: str
    at: float
    milliseconds: float
    version: int | None
    computed_by: int | None
    error: str | None


class _Requester:
    """One connection of one protocol."""

    def __init__(self, protocol: str, plan: ClientPlan, inputs: FloatArray, expected: dict[int, FloatArray]) -> None:
        self._plan = plan
        self._expected = expected
        self._tools: Any = tritonclient.grpc if protocol == "grpc" else tritonclient.http
        if protocol == "grpc":
            self._client = tritonclient.grpc.InferenceServerClient(plan.grpc_address)
            self._timeout = {"client_timeout": TIMEOUT_SECONDS}
        else:
            self._client = tritonclient.http.InferenceServerClient(plan.http_address, network_timeout=TIMEOUT_SECONDS)
            self._timeout = {}
        self._requests = []
        for batch in inputs:
            tensor = self._tools.InferInput(plan.input_name, list(batch.shape), "FP32")
            tensor.set_data_from_numpy(batch)
            self._requests.append(tensor)

    def ask(self, number: int) -> tuple[int, int | None]:
        """Send batch ``number`` (modulo their count): the version stated and the version that computed the answer."""
        index = number % len(self._requests)
        answer = self._client.infer(self._plan.model, [self._requests[index]], **self._timeout)
        response = answer.get_response()
        stated = int(response["model_version"] if isinstance(response, dict) else response.model_version)
        output = answer.as_numpy(self._plan.output_name)
        distances = {
            version: float(numpy.abs(output - known[index]).max()) for version, known in self._expected.items()
        }
        nearest = min(distances, key=lambda version: distances[version])
        return stated, nearest if distances[nearest] <= self._plan.tolerance else None


def run_clients(plan: ClientPlan, inputs: FloatArray, expected: dict[int, FloatArray]) -> list[Record]:
    """Run the four clients side by side for ``plan.seconds``; ``inputs`` is (requests, batch, ...)."""
    records: list[Record] = []
    lock = threading.Lock()
    print("start", flush=True)
    start = time.monotonic()

    def fixed(requester: _Requester, name: str, offset: float) -> None:
        number = 0
        while (due := offset + number / plan.fixed_rate) < plan.seconds:
            time.sleep(max(0.0, start + due - time.monotonic()))
            note(requester, name, number, due)
            number += 1

    def closed(requester: _Requester, name: str, offset: float) -> None:
        number = 0
        time.sleep(offset)
        while (at := time.monotonic() - start) < plan.seconds:
            note(requester, name, number, at)
            time.sleep(plan.think_seconds)
            number += 1

    def note(requester: _Requester, name: str, number: int, due: float) -> None:
        stated: int | None = None
        computed_by: int | None = None
        problem: str | None = None
        try:
            stated, computed_by = requester.ask(number)
        except Exception as error:
            # Whatever it was, the user of this client got no answer: that is what is counted.
            problem = f"{type(error).__name__}: {error}"[:300]
        milliseconds = (time.monotonic() - start - due) * 1000
        record = Record(
            client=name, at=due, milliseconds=milliseconds, version=stated, computed_by=computed_by, error=problem
        )
        with lock:
            records.append(record)

    def client(
        loop: Callable[[_Requester, str, float], None], protocol: str, name: str, offset: float
    ) -> threading.Thread:
        def body() -> None:
            loop(_Requester(protocol, plan, inputs, expected), name, offset)

        return threading.Thread(target=body, name=name)

    threads = [
        client(fixed, "grpc", "fixed rate, gRPC", 0.0),
        client(fixed, "http", "fixed rate, HTTP", 0.5 / plan.fixed_rate),
        client(closed, "grpc", "closed loop, gRPC", 0.25 * plan.think_seconds),
        client(closed, "http", "closed loop, HTTP", 0.75 * plan.think_seconds),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(records, key=lambda record: record.at)


def main() -> None:
    """Read the plan and the inputs, run, write one JSON line per request."""
    plan_path, inputs_path, records_path = sys.argv[1:]
    plan = ClientPlan(**json.loads(Path(plan_path).read_text()))
    os.sched_setaffinity(0, set(plan.cpus))
    with numpy.load(inputs_path) as arrays:
        inputs = arrays["inputs"]
        expected = {int(name.removeprefix("version_")): arrays[name] for name in arrays.files if name != "inputs"}
    records = run_clients(plan, inputs, expected)
    with Path(records_path).open("w") as file:
        file.writelines(json.dumps(asdict(record)) + "\n" for record in records)


if __name__ == "__main__":
    main()
