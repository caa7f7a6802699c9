"""The gateway's web application: health, metadata and inference; everything else is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from aiohttp import ClientPayloadError, web
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2, service_pb2_grpc

from edgefolio_edge.http_gateway.connections import AskingConnections
from edgefolio_edge.http_gateway.inference import read_inference, written_answer
from edgefolio_edge.http_gateway.limits import BadRequestError, Limits

__all__ = ["Gateway"]

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
_VERSIONED = r"/v2/models/{model:[^/{}]+}"
#: What a gRPC status is in HTTP, as Triton's own service answers.
_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_QUICK_SECONDS = 5.0
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """The application over one Triton's gRPC service at ``host:port``."""

    def __init__(self, endpoint: str, limits: Limits) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self.asking = AskingConnections()
        self._under_way = 0
        self._bytes_under_way = 0

    def application(self) -> web.Application:
        """The routes, with a channel to Triton that lives as long as they are served."""
        application = web.Application(middlewares=[self._told])
        application.cleanup_ctx.append(self._channel)
        router = application.router
        router.add_get("/v2", self._server)
        router.add_get("/v2/health/live", self._live)
        router.add_get("/v2/health/ready", self._ready)
        for path in (_VERSIONED, f"{_VERSIONED}/versions/{{version:[0-9]{{1,19}}}}"):
            router.add_get(path, self._model)
            router.add_get(f"{path}/ready", self._model_ready)
            router.add_post(f"{path}/infer", self._infer)
        return application

    async def _channel(self, _application: web.Application) -> Any:
        options = [
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        ]
        async with grpc.aio.insecure_channel(self._endpoint, options=options) as channel:
            self._triton = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            yield

    @web.middleware
    async def _told(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Every failure as ``{"error": ...}`` with its status."""
        try:
            with self.asking.asks(request.transport):
                return await handler(request)
        except BadRequestError as error:
            return _error(str(error), error.status)
        except web.HTTPException as error:
            return _error(f"{request.method} {request.path}: {error.reason}", error.status)
        except TimeoutError:
            return _error(f"the body did not arrive within {self._limits.body_seconds:g} s", 408)
        except grpc.aio.AioRpcError as error:
            return _error(error.details() or str(error.code()), _STATUSES.get(error.code(), 500))

    async def _server(self, _request: web.Request) -> web.Response:
        answer = await self._triton.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=_QUICK_SECONDS)
        return _document(answer)

    async def _live(self, _request: web.Request) -> web.Response:
        answer = await self._triton.ServerLive(service_pb2.ServerLiveRequest(), timeout=_QUICK_SECONDS)
        return web.Response(status=200 if answer.live else 400)

    async def _ready(self, _request: web.Request) -> web.Response:
        answer = await self._triton.ServerReady(service_pb2.ServerReadyRequest(), timeout=_QUICK_SECONDS)
        return web.Response(status=200 if answer.ready else 400)

    async def _model(self, request: web.Request) -> web.Response:
        model, version = _named(request)
        wanted = service_pb2.ModelMetadataRequest(name=model, version=version)
        return _document(await self._triton.ModelMetadata(wanted, timeout=_QUICK_SECONDS))

    async def _model_ready(self, request: web.Request) -> web.Response:
        model, version = _named(request)
        wanted = service_pb2.ModelReadyRequest(name=model, version=version)
        answer = await self._triton.ModelReady(wanted, timeout=_QUICK_SECONDS)
        return web.Response(status=200 if answer.ready else 400)

    async def _infer(self, request: web.Request) -> web.Response:
        limits = self._limits
        model, version = _named(request)
        json_length = _json_length(request)
        # Without tensors behind it, all of a body is JSON.
        most = limits.json_bytes if json_length is None else limits.body_bytes
        if request.content_length is None or "Transfer-Encoding" in request.headers:
            raise BadRequestError("the request does not state its Content-Length", status=411)
        if request.content_length > most:
            raise _too_large(most)
        # A compressed body may become as long as the longest.
        reserved = most if request.headers.get("Content-Encoding") else request.content_length
        if self._under_way >= limits.at_once or (
            self._under_way and self._bytes_under_way + reserved > limits.bytes_at_once
        ):
            raise BadRequestError("too many requests are under way; ask again", status=503)
        self._under_way += 1
        self._bytes_under_way += reserved
        try:
            async with asyncio.timeout(limits.body_seconds):
                body = await _read(request, most)
            call = read_inference(body, json_length=json_length, model=model, version=version, limits=limits)
            try:
                answer = await self._triton.ModelInfer(call.message, timeout=limits.answer_seconds)
            except ValueError as error:
                # A message beyond the 2 GiB of protobuf.
                raise BadRequestError(str(error), status=413) from error
        finally:
            self._under_way -= 1
            self._bytes_under_way -= reserved
        content, json_length = written_answer(call, answer)
        if json_length is None:
            return web.Response(body=content, content_type="application/json")
        headers = {JSON_LENGTH_HEADER: str(json_length)}
        return web.Response(body=content, content_type="application/octet-stream", headers=headers)


def _named(request: web.Request) -> tuple[str, str]:
    model, version = request.match_info["model"], request.match_info.get("version", "")
    try:
        model.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError("the model's name is no text") from error
    return model, version


async def _read(request: web.Request, most: int) -> bytes:
    """The body, decompressed. Raises :class:`BadRequestError` as soon as it has more than ``most`` bytes."""
    parts, size = [], 0
    try:
        async for part in request.content.iter_any():
            size += len(part)
            if size > most:
                raise _too_large(most)
            parts.append(part)
    except (web.RequestPayloadError, ClientPayloadError) as error:
        raise BadRequestError(f"the body is not what its headers say: {error}") from error
    return b"".join(parts)


def _too_large(most: int) -> BadRequestError:
    return BadRequestError(
        f"the body has more than {most} bytes; JSON alone may have fewer than tensors as binary data", status=413
    )


def _json_length(request: web.Request) -> int | None:
    text = request.headers.get(JSON_LENGTH_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise BadRequestError(f"{JSON_LENGTH_HEADER} is no number")
    return int(text)


def _document(message: Any) -> web.Response:
    document = MessageToDict(message, preserving_proto_field_name=True)
    # protobuf writes 64-bit numbers as text, the protocol has numbers.
    for tensors in (document.get("inputs", []), document.get("outputs", [])):
        for tensor in tensors:
            tensor["shape"] = [int(size) for size in tensor.get("shape", [])]
    return web.json_response(document)


def _error(message: str, status: int) -> web.Response:
    answer = web.json_response({"error": message}, status=status)
    # Its body may not have been read to the end.
    answer.force_close()
    return answer
