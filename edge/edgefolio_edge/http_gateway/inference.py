"""Inference over HTTP, with the binary extension, to and from gRPC messages. Pure."""

from __future__ import annotations

import json
from typing import Any

from tritonclient.grpc import service_pb2

from edgefolio_edge.http_gateway.json_text import read_json_object
from edgefolio_edge.http_gateway.limits import BadRequestError, Limits
from edgefolio_edge.http_gateway.tensors import DATA_TYPES, json_values, packed_values, read_shape, require_bytes

__all__ = ["InferenceCall", "read_inference", "written_answer"]

_BINARY_SIZE = "binary_data_size"
_BINARY = "binary_data"
_ALL_BINARY = "binary_data_output"
_LONGEST_NAME = 1024


class InferenceCall:
    """A request as gRPC has it, and which of its outputs the client wants as bytes."""

    def __init__(self, message: Any, *, all_binary: bool, binary: dict[str, bool]) -> None:
        self.message = message
        self._all_binary = all_binary
        self._binary = binary

    def is_binary(self, output: str) -> bool:
        """Whether ``output`` goes behind the JSON part."""
        return self._binary.get(output, self._all_binary)


def read_inference(body: bytes, *, json_length: int | None, model: str, version: str, limits: Limits) -> InferenceCall:
    """The call in ``body``, whose first ``json_length`` bytes are JSON (all of it if ``None``), tensors behind it.

    Raises :class:`~edgefolio_edge.http_gateway.limits.BadRequestError` for whatever is not well-formed.
    """
    if json_length is not None and not 0 < json_length <= len(body):
        raise BadRequestError(f"Inference-Header-Content-Length is not between 1 and the body's {len(body)} bytes")
    end = len(body) if json_length is None else json_length
    document = read_json_object(body[:end], limits)
    try:
        return _call(document, body, end, model=model, version=version, limits=limits)
    except UnicodeEncodeError as error:
        raise BadRequestError("a text holds half of a surrogate pair") from error


def _call(
    document: dict[str, Any], body: bytes, end: int, *, model: str, version: str, limits: Limits
) -> InferenceCall:
    message = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    request_id = document.get("id", "")
    if not isinstance(request_id, str):
        raise BadRequestError("'id' is not a text")
    message.id = request_id
    parameters = _parameters(document, "the request", limits)
    all_binary = _flag(parameters.pop(_ALL_BINARY, False), _ALL_BINARY)
    _set_parameters(message.parameters, parameters)
    position = end
    for entry in _entries(document, "inputs", limits, least=1):
        position = _add_input(message, entry, body, position, limits)
    if position != len(body):
        raise BadRequestError(f"{len(body) - position} bytes of binary data belong to no input")
    binary: dict[str, bool] = {}
    for entry in _entries(document, "outputs", limits):
        name, wanted = _name(entry), _parameters(entry, "an output", limits)
        if _BINARY in wanted:
            binary[name] = _flag(wanted.pop(_BINARY), _BINARY)
        _set_parameters(message.outputs.add(name=name).parameters, wanted)
    return InferenceCall(message, all_binary=all_binary, binary=binary)


def written_answer(call: InferenceCall, answer: Any) -> tuple[bytes, int | None]:
    """The body of an answer, and how many of its bytes are JSON (``None``: all of them)."""
    outputs: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if call.is_binary(output.name) or output.datatype not in DATA_TYPES:
            entry["parameters"] = {_BINARY_SIZE: len(raw)}
            behind.append(raw)
        else:
            entry["data"] = json_values(raw, datatype=output.datatype)
        outputs.append(entry)
    document: dict[str, Any] = {"model_name": answer.model_name, "model_version": answer.model_version}
    if answer.id:
        document["id"] = answer.id
    text = json.dumps({**document, "outputs": outputs}).encode()
    return (b"".join([text, *behind]), len(text)) if behind else (text, None)


def _add_input(message: Any, entry: dict[str, Any], body: bytes, position: int, limits: Limits) -> int:
    """Add one input, whose bytes begin at ``position`` if it is binary; returns where the next one's begin."""
    name = _name(entry)
    shape = read_shape(entry.get("shape"), name=name, limits=limits)
    datatype = entry.get("datatype")
    parameters = _parameters(entry, f"input '{name}'", limits)
    size = parameters.pop(_BINARY_SIZE, None)
    if size is None:
        raw = packed_values(entry.get("data"), name=name, datatype=datatype, shape=shape)
    else:
        if "data" in entry:
            raise BadRequestError(f"input '{name}' has both 'data' and {_BINARY_SIZE}")
        if type(size) is not int or not 0 <= size <= len(body) - position:
            raise BadRequestError(f"input '{name}': {_BINARY_SIZE} is beyond the end of the body")
        require_bytes(size, name=name, datatype=datatype, shape=shape)
        raw = body[position : position + size]
        position += size
    added = message.inputs.add(name=name, datatype=datatype, shape=shape)
    _set_parameters(added.parameters, parameters)
    message.raw_input_contents.append(raw)
    return position


def _entries(document: dict[str, Any], key: str, limits: Limits, *, least: int = 0) -> list[dict[str, Any]]:
    entries = document.get(key, [])
    if not isinstance(entries, list) or not least <= len(entries) <= limits.tensors:
        raise BadRequestError(f"'{key}' is not a list of {least} to {limits.tensors} tensors")
    if not all(isinstance(entry, dict) for entry in entries):
        raise BadRequestError(f"'{key}' holds something else than objects")
    return entries


def _name(entry: dict[str, Any]) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise BadRequestError(f"a tensor's 'name' is not a text of 1 to {_LONGEST_NAME} characters")
    return name


def _parameters(document: dict[str, Any], whose: str, limits: Limits) -> dict[str, Any]:
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict) or len(parameters) > limits.parameters:
        raise BadRequestError(f"'parameters' of {whose} is not an object of at most {limits.parameters}")
    return dict(parameters)


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise BadRequestError(f"'{name}' is neither true nor false")
    return value


def _set_parameters(target: Any, parameters: dict[str, Any]) -> None:
    for key, value in parameters.items():
        # bool is an int in Python.
        if isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
            target[key].int64_param = value
        elif isinstance(value, str):
            target[key].string_param = value
        elif isinstance(value, float):
            target[key].double_param = value
        else:
            raise BadRequestError(f"parameter '{key}' is neither a flag, nor a number, nor a text")
