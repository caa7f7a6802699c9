"""A client tries to end the server by HTTP where that is asked for: the gateway answers, and others are served on."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.http as triton_http
from triton_portfolios import MODEL, SIZE
from triton_site import Site, open_site
from tritonclient.utils import InferenceServerException

from edgefolio.manifest import Manifest
from edgefolio_edge.triton.host import Host

INFER = f"/v2/models/{MODEL}/infer"
CHUNKS = b"1\r\nA\r\n" * 600_000 + b"0\r\n\r\n"
NESTED = b"[" * 200_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest, repository: Path) -> Iterator[Site]:
    """A server with HTTP, as `edgefolio run --http-port` starts it."""
    for found in open_site(tmp_path_factory.mktemp("site"), manifest, repository):
        found.serve(1)
        yield found


@pytest.fixture
def client(site: Site) -> Iterator[Any]:
    client = triton_http.InferenceServerClient(site.server.http_endpoint)
    yield client
    client.close()


def tensor(values: Any, *, binary: bool) -> Any:
    found = triton_http.InferInput("image", list(values.shape), "FP32")
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def exchanged(site: Site, raw: bytes, *, seconds: float = 30.0) -> bytes:
    """What the server answers to ``raw``; empty if it closed the connection."""
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection(_address(site), timeout=seconds) as connection:
        connection.sendall(raw)
        while part := connection.recv(65536):
            answer += part
            if b"\r\n\r\n" in answer:
                break
    return answer


def posted(body: bytes, *headings: str, path: str = INFER) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close", *headings]
    return "\r\n".join([*lines, "", ""]).encode() + body


def sized(body: bytes, *headings: str, path: str = INFER) -> bytes:
    return posted(body, f"Content-Length: {len(body)}", *headings, path=path)


def assert_unharmed(site: Site) -> None:
    """The same server answers over gRPC, and so does the same gateway over HTTP."""
    assert site.server.is_alive()
    assert site.server.has_gateway()
    assert site.switcher.canary(site.placement(1)) is None
    image = np.zeros((1, 1, SIZE, SIZE), np.float32)
    body = {"inputs": [{"name": "image", "shape": [1, 1, SIZE, SIZE], "datatype": "FP32", "data": image.tolist()}]}
    assert exchanged(site, sized(json.dumps(body).encode())).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("asked", [True, False], ids=["binary answer", "JSON answer"])
@pytest.mark.parametrize("sent", [True, False], ids=["binary", "JSON"])
def test_tritons_own_client_gets_the_answers_of_grpc(site: Site, client: Any, sent: bool, asked: bool) -> None:
    image = np.random.default_rng(0).normal(size=(3, 1, SIZE, SIZE)).astype(np.float32)
    expected = site.control.infer(MODEL, {"image": image}).outputs["logits"]
    outputs = [triton_http.InferRequestedOutput("logits", binary_data=asked)]
    found = client.infer(MODEL, [tensor(image, binary=sent)], outputs=outputs, request_id="seven")
    np.testing.assert_allclose(found.as_numpy("logits"), expected, rtol=1e-6)
    assert found.get_response()["id"] == "seven"
    version = str(site.placement(1).version)
    assert found.get_response()["model_version"] == version
    assert client.infer(MODEL, [tensor(image, binary=True)], model_version=version).as_numpy("logits").shape[0] == 3


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(client: Any, algorithm: str) -> None:
    image = np.zeros((2, 1, SIZE, SIZE), np.float32)
    found = client.infer(MODEL, [tensor(image, binary=True)], request_compression_algorithm=algorithm)
    assert found.as_numpy("logits").shape[0] == 2


def test_health_and_metadata_are_those_of_the_server(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert not client.is_model_ready("another")
    assert client.get_server_metadata()["name"] == "triton"
    described = client.get_model_metadata(MODEL)
    assert described["inputs"][0] == {"name": "image", "datatype": "FP32", "shape": [-1, 1, SIZE, SIZE]}


def test_control_is_not_there(client: Any) -> None:
    for call in (
        lambda: client.load_model(MODEL),
        lambda: client.unload_model(MODEL),
        lambda: client.get_model_repository_index(),
        lambda: client.register_system_shared_memory("x", "/x", 16),
        lambda: client.update_log_settings({"log_verbose_level": 9}),
        lambda: client.get_model_config(MODEL),
    ):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() in ("404", "405")


BAD: dict[str, bytes] = {
    "tiny chunks": posted(CHUNKS, "Transfer-Encoding: chunked"),
    "nested": sized(NESTED),
    "nested objects": sized(b'{"a":' * 100_000),
    "nested in a tensor": sized(b'{"inputs":[{"name":"image","data":' + NESTED),
    "not JSON": sized(b"\xff" * 1000),
    "a length beyond the body": sized(b"{}", "Inference-Header-Content-Length: 99999999999"),
    "a negative length": sized(b"{}", "Inference-Header-Content-Length: -1"),
    "a length that is none": sized(b"{}", "Inference-Header-Content-Length: 1e3"),
    "more than the longest": posted(b"", "Content-Length: 99999999999999"),
    "two lengths": posted(b"{}", "Content-Length: 2", "Content-Length: 3"),
    "a bomb": sized(zlib.compress(b"0" * (256 << 20), 9), "Content-Encoding: deflate"),
    "a bomb of JSON": sized(zlib.compress(b'{"inputs":[' + b"0," * (20 << 20), 9), "Content-Encoding: deflate"),
    "an unknown model": sized(
        b'{"inputs":[{"name":"image","shape":[1],"datatype":"FP32","data":[0]}]}', path="/v2/models/x/infer"
    ),
    "a wrong shape": sized(b'{"inputs":[{"name":"image","shape":[1],"datatype":"FP32","data":[0]}]}'),
    "another verb": b"TRACE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a long path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "many headings": b"GET /v2 HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "no HTTP": b"\x16\x03\x01" + bytes(1000),
}


@pytest.mark.parametrize("request_", BAD)
def test_what_no_server_should_read_gets_an_answer_and_harms_nobody(site: Site, request_: str) -> None:
    answer = exchanged(site, BAD[request_])
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert_unharmed(site)


def test_a_client_that_keeps_on_takes_nothing_from_others(site: Site) -> None:
    stop = threading.Event()

    def attack() -> None:
        while not stop.is_set():
            exchanged(site, BAD["nested"])
            exchanged(site, sized(b"[" * 16 + b"0," * 100_000))

    attackers = [threading.Thread(target=attack) for _ in range(2)]
    for attacker in attackers:
        attacker.start()
    try:
        for _ in range(20):
            assert_unharmed(site)
    finally:
        stop.set()
        for attacker in attackers:
            attacker.join()


def test_bodies_that_never_end_leave_room_for_others(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(socket.create_connection(_address(site), timeout=30))
            connection.sendall(posted(b"", "Content-Length: 1000000"))
        assert_unharmed(site)


def test_a_gateway_that_dies_is_started_again_at_the_same_port(site: Site) -> None:
    gateway = site.server.gateway
    assert gateway is not None
    host = Host(site.server.endpoint(), server=site.server)
    gateway.kill()
    assert not host.has_gateway()
    host.restart_gateway()
    assert host.server is not None
    try:
        assert host.server.gateway != gateway
        assert_unharmed(Site(**{**vars(site), "server": host.server}))
    finally:
        # The site goes on with the gateway that it knows.
        new = host.server.gateway
        assert new is not None
        new.kill()
        object.__setattr__(site.server, "gateway", site.server.with_gateway().gateway)


def test_the_gateway_ends_with_the_server(tmp_path: Path, manifest: Manifest, repository: Path) -> None:
    for found in open_site(tmp_path, manifest, repository):
        gateway = found.server.gateway
        assert gateway is not None
        assert psutil.Process(gateway.pid).is_running()
        found.server.identity.send(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while gateway.is_alive() and time.monotonic() < deadline:
            found.server.is_alive()  # takes the dead server's exit status
            time.sleep(0.05)
        assert not gateway.is_alive()


def _address(site: Site) -> tuple[str, int]:
    port = site.server.ports.http
    assert port is not None
    return "127.0.0.1", port
