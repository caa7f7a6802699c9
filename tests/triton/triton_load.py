"""Clients as users write them: Triton's own for gRPC and HTTP, closed loop, every answer checked."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from triton_portfolios import images, revealed_tag

from edgefolio.manifest import Manifest
from edgefolio_edge.models.variants import variant_of_version


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request: when it was sent and answered, the version that the answer states, the variant that computed it."""

    protocol: str
    sent: float
    answered: float
    version: int | None
    tag: int | None
    error: str | None


class Clients:
    """``grpc`` + ``http`` threads that send requests until stopped; a context manager."""

    def __init__(
        self, grpc_endpoint: str, http_endpoint: str, *, model: str, grpc: int = 2, http: int = 2, think: float = 0.0
    ) -> None:
        self._model = model
        self._think = think
        self._stop = threading.Event()
        self._done: list[list[Request]] = []
        self._threads = []
        for protocol, endpoint, count in (("grpc", grpc_endpoint, grpc), ("http", http_endpoint, http)):
            for number in range(count):
                done: list[Request] = []
                self._done.append(done)
                self._threads.append(
                    threading.Thread(target=self._send, args=(protocol, endpoint, number, done), daemon=True)
                )

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def requests(self) -> list[Request]:
        """All requests so far, by the time of their answer."""
        return sorted((request for done in self._done for request in list(done)), key=lambda request: request.answered)

    def latest_good_run(self) -> int:
        """How many of the latest requests in a row were answered."""
        requests = self.requests()
        return next((number for number, request in enumerate(reversed(requests)) if request.error), len(requests))

    def wait_for(self, count: int, *, seconds: float = 60.0) -> None:
        """Wait until ``count`` requests were answered or failed."""
        deadline = time.monotonic() + seconds
        while sum(len(done) for done in self._done) < count and time.monotonic() < deadline:
            time.sleep(0.005)

    def _send(self, protocol: str, endpoint: str, seed: int, done: list[Request]) -> None:
        module: Any = triton_grpc if protocol == "grpc" else triton_http
        client = module.InferenceServerClient(endpoint)
        values = images(1, seed=seed)
        tensor = module.InferInput("image", list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)
        while not self._stop.is_set():
            sent = time.perf_counter()
            version = tag = error = None
            try:
                result = client.infer(self._model, [tensor])
                response = result.get_response()
                version = int(response.model_version if protocol == "grpc" else response["model_version"])
                tag = revealed_tag(np.asarray(result.as_numpy("logits")))
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
            done.append(
                Request(
                    protocol=protocol,
                    sent=sent,
                    answered=time.perf_counter(),
                    version=version,
                    tag=tag,
                    error=error,
                )
            )
            if self._think:
                time.sleep(self._think)
        client.close()


def failed(requests: list[Request]) -> list[Request]:
    """Requests without an answer."""
    return [request for request in requests if request.error is not None]


def wrong(requests: list[Request], manifest: Manifest, tags: dict[str, int]) -> list[Request]:
    """Answers whose stated version is not the one that computed them. ``tags`` by variant name."""
    found = []
    for request in requests:
        if request.error is not None:
            continue
        variant = variant_of_version(manifest, request.version or 0)
        if variant is None or tags[variant.name] != request.tag:
            found.append(request)
    return found


def longest_gap(requests: list[Request]) -> float:
    """The longest time without any answer, in seconds."""
    answered = [request.answered for request in requests]
    return max((later - earlier for earlier, later in pairwise(answered)), default=0.0)
