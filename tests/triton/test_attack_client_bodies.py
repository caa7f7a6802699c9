"""A client without the key tries to end the server: by HTTP, which is off, and by whatever gRPC and metrics take."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from triton_portfolios import MODEL, SIZE
from triton_site import Site, open_site
from tritonclient.grpc import service_pb2, service_pb2_grpc

from edgefolio.manifest import Manifest
from edgefolio_edge.triton.launcher.ports import Ports

CHUNKS = b"1\r\nA\r\n" * 600_000 + b"0\r\n\r\n"
NESTED = b"[" * 200_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest, repository: Path) -> Iterator[Site]:
    """A server as `edgefolio run` and the pods start it: without HTTP."""
    for found in open_site(tmp_path_factory.mktemp("site"), manifest, repository, ports=Ports(grpc=0, metrics=0)):
        found.serve(1)
        yield found


def request(**changes: Any) -> service_pb2.ModelInferRequest:
    """A good request for one sample, with fields replaced."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=[1, 1, SIZE, SIZE])
    good: dict[str, Any] = {"model_name": MODEL, "inputs": [tensor], "raw_input_contents": [bytes(4 * SIZE * SIZE)]}
    return service_pb2.ModelInferRequest(**{**good, **changes})


def shaped(*shape: int, datatype: str = "FP32", name: str = "image") -> list[Any]:
    return [service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=list(shape))]


def parameter(**value: Any) -> Any:
    return service_pb2.InferParameter(**value)


def with_parameters(**values: Any) -> list[Any]:
    """The input, with these parameters."""
    (tensor,) = shaped(1, 1, SIZE, SIZE)
    for name, value in values.items():
        tensor.parameters[name].CopyFrom(value)
    return [tensor]


def outputs(count: int, **parameters: Any) -> list[Any]:
    found = []
    for _ in range(count):
        output = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="logits")
        for name, value in parameters.items():
            output.parameters[name].CopyFrom(value)
        found.append(output)
    return found


REQUESTS: dict[str, Callable[[], service_pb2.ModelInferRequest]] = {
    "negative sizes": lambda: request(inputs=shaped(-1, -1, SIZE, SIZE)),
    "sizes whose product overflows": lambda: request(inputs=shaped(2**31, 2**31, 2**31, 4)),
    "the largest size": lambda: request(inputs=shaped(2**63 - 1, 1, SIZE, SIZE)),
    "no size": lambda: request(inputs=shaped()),
    "a thousand axes": lambda: request(inputs=shaped(*[1] * 1000)),
    "zero samples": lambda: request(inputs=shaped(0, 1, SIZE, SIZE), raw_input_contents=[b""]),
    "more bytes than said": lambda: request(raw_input_contents=[bytes(40 * SIZE * SIZE)]),
    "fewer bytes than said": lambda: request(raw_input_contents=[b"x"]),
    "no bytes": lambda: request(raw_input_contents=[]),
    "bytes twice": lambda: request(raw_input_contents=[b"", b""]),
    "another type": lambda: request(inputs=shaped(1, 1, SIZE, SIZE, datatype="BYTES")),
    "no type": lambda: request(inputs=shaped(1, 1, SIZE, SIZE, datatype="x" * 100_000)),
    "lengths of strings that lie": lambda: request(
        inputs=shaped(1, 1, SIZE, SIZE, datatype="BYTES"), raw_input_contents=[b"\xff" * (4 * SIZE * SIZE)]
    ),
    "the same input a thousand times": lambda: request(inputs=shaped(1, 1, SIZE, SIZE) * 1000),
    "a thousand outputs": lambda: request(outputs=outputs(1000)),
    "a hundred thousand outputs": lambda: request(outputs=outputs(100_000)),
    "a class for every number": lambda: request(outputs=outputs(1, classification=parameter(int64_param=2**62))),
    "a negative class": lambda: request(outputs=outputs(1, classification=parameter(int64_param=-1))),
    "shared memory that nobody registered": lambda: request(
        inputs=with_parameters(
            shared_memory_region=parameter(string_param="x"), shared_memory_byte_size=parameter(int64_param=2**62)
        ),
        raw_input_contents=[],
    ),
    "shared memory of the backend": lambda: request(
        inputs=with_parameters(
            shared_memory_region=parameter(string_param="/dev/shm/edgefolio"),
            shared_memory_offset=parameter(int64_param=-1),
            shared_memory_byte_size=parameter(int64_param=4 * SIZE * SIZE),
        ),
        raw_input_contents=[],
    ),
    "sequences": lambda: request(
        parameters={
            "sequence_id": parameter(int64_param=-1),
            "sequence_start": parameter(bool_param=True),
            "sequence_end": parameter(bool_param=True),
        }
    ),
    "a priority and a timeout beyond all": lambda: request(
        parameters={"priority": parameter(int64_param=-(2**63)), "timeout": parameter(int64_param=2**63 - 1)}
    ),
    "a thousand parameters": lambda: request(
        parameters={f"p{number}": parameter(string_param="x" * 1000) for number in range(1000)}
    ),
    "a parameter of the server": lambda: request(
        parameters={"triton_enable_empty_final_response": parameter(bool_param=True)}
    ),
    "a name that leaves": lambda: request(model_name="../../etc"),
    "a long name": lambda: request(model_name="x" * 1_000_000),
    "a version that is none": lambda: request(model_version="../1"),
    "a huge version": lambda: request(model_version="9" * 10_000),
    "a long id": lambda: request(id="x" * 5_000_000),
    "40 MiB": lambda: request(raw_input_contents=[bytes(40 << 20)]),
}


def serves(site: Site) -> bool:
    """Whether the same server process answers a good request rightly."""
    return site.server.is_alive() and site.switcher.canary(site.placement(1)) is None


@pytest.mark.parametrize("body", REQUESTS)
def test_a_request_over_grpc_is_answered_or_refused(site: Site, body: str) -> None:
    channel = grpc.insecure_channel(
        site.server.grpc_endpoint,
        options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
    )
    with channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(3):
            with contextlib.suppress(grpc.RpcError):
                stub.ModelInfer(REQUESTS[body](), timeout=20)
        with contextlib.suppress(grpc.RpcError):
            list(itertools.islice(stub.ModelStreamInfer(iter([REQUESTS[body]()] * 3), timeout=20), 3))
    assert serves(site)


def test_streams_that_are_cancelled_end_nothing(site: Site) -> None:
    with grpc.insecure_channel(site.server.grpc_endpoint) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelStreamInfer(iter([request()] * 20)) for _ in range(50)]
        for call in calls:
            call.cancel()
        calls = [stub.ModelInfer.future(request()) for _ in range(200)]
        for call in calls:
            call.cancel()
    assert serves(site)


@pytest.mark.parametrize("raw", [b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 50_000, b"\xff" * 100, b""])
def test_bytes_that_are_no_message_are_refused(site: Site, raw: bytes) -> None:
    with grpc.insecure_channel(site.server.grpc_endpoint) as channel:
        for method in ("ModelInfer", "ModelMetadata", "ModelStatistics", "ServerMetadata"):
            call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            with contextlib.suppress(grpc.RpcError):
                call(raw, timeout=20)
    assert serves(site)


@pytest.mark.parametrize(
    ("heading", "body"), [("Transfer-Encoding: chunked", CHUNKS), (f"Content-Length: {len(NESTED)}", NESTED)]
)
@pytest.mark.parametrize("port", ["grpc", "metrics"])
def test_bodies_that_end_a_server_by_http_reach_nothing(site: Site, heading: str, body: bytes, port: str) -> None:
    """Triton 2.51 with HTTP dies of each of them."""
    number = getattr(site.server.ports, port)
    for path in (f"/v2/models/{MODEL}/infer", "/metrics"):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", number), timeout=20) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{heading}\r\n\r\n"
            connection.sendall(head.encode() + body)
            connection.recv(200)
    assert serves(site)


def test_nothing_listens_for_http(site: Site) -> None:
    assert site.server.http_endpoint is None
    process = psutil.Process(site.server.identity.pid)
    found = {each.laddr.port for each in process.net_connections(kind="tcp") if each.status == psutil.CONN_LISTEN}
    assert found == {site.server.ports.grpc, site.server.ports.metrics}


def test_an_answer_is_right_after_all_that(site: Site) -> None:
    image = np.zeros((3, 1, SIZE, SIZE), np.float32)
    assert site.control.infer(MODEL, {"image": image}).outputs["logits"].shape[0] == 3
