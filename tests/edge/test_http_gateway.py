"""HTTP form of inference requests: what is well-formed becomes the same gRPC message, all else is refused in bounds."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tritonclient.grpc import service_pb2

from edgefolio_edge.http_gateway.inference import read_inference, written_answer
from edgefolio_edge.http_gateway.json_text import depth_of, read_json_object
from edgefolio_edge.http_gateway.limits import BadRequestError, Limits
from edgefolio_edge.http_gateway.tensors import DATA_TYPES

LIMITS = Limits(body_bytes=1 << 16, json_bytes=1 << 14, json_parts=1 << 10)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def read(document: Any, behind: bytes = b"") -> Any:
    text = json.dumps(document).encode()
    return read_inference(
        text + behind, json_length=len(text) if behind else None, model="m", version="", limits=LIMITS
    )


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray[Any, Any]]:
    datatype = draw(st.sampled_from(sorted(DATA_TYPES)))
    return datatype, draw(arrays(DATA_TYPES[datatype], array_shapes(min_dims=1, max_dims=3, max_side=4)))


@settings(deadline=None)
@given(tensors(), st.booleans(), st.booleans())
def test_any_tensor_arrives_as_it_was_sent(tensor: tuple[str, Any], binary: bool, flat: bool) -> None:
    datatype, array = tensor
    entry: dict[str, Any] = {"name": "x", "shape": list(array.shape), "datatype": datatype}
    if binary:
        call = read({"inputs": [{**entry, "parameters": {"binary_data_size": array.nbytes}}]}, array.tobytes())
    else:
        call = read({"inputs": [{**entry, "data": (array.ravel() if flat else array).tolist()}]})
    found = np.frombuffer(call.message.raw_input_contents[0], dtype=array.dtype).reshape(call.message.inputs[0].shape)
    np.testing.assert_array_equal(found, array)
    assert call.message.inputs[0].datatype == datatype


@settings(deadline=None)
@given(tensors(), st.booleans())
def test_any_answer_is_read_as_the_server_gave_it(tensor: tuple[str, Any], binary: bool) -> None:
    datatype, array = tensor
    entry = {"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}
    call = read({"id": "7", "inputs": [entry], "parameters": {"binary_data_output": binary}})
    answer = service_pb2.ModelInferResponse(model_name="m", model_version="3", id="7")
    answer.outputs.add(name="y", datatype=datatype, shape=array.shape)
    answer.raw_output_contents.append(array.tobytes())
    body, length = written_answer(call, answer)
    document = json.loads(body[:length])
    assert (document["model_version"], document["id"]) == ("3", "7")
    (output,) = document["outputs"]
    raw = body[length:] if binary else np.asarray(output["data"], dtype=array.dtype).tobytes()
    np.testing.assert_array_equal(np.frombuffer(raw, dtype=array.dtype).reshape(output["shape"]), array)


@settings(deadline=None, max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": JSON_VALUES,
            "parameters": JSON_VALUES,
            "outputs": JSON_VALUES,
            "inputs": JSON_VALUES
            | st.lists(
                st.fixed_dictionaries(
                    {"name": st.just("x"), "datatype": st.sampled_from([*DATA_TYPES, "BYTES"])},
                    optional={"shape": JSON_VALUES | st.just([2]), "data": JSON_VALUES, "parameters": JSON_VALUES},
                ),
                max_size=3,
            ),
        },
    ),
    st.binary(max_size=16),
)
def test_any_document_is_a_call_or_refused(document: dict[str, Any], behind: bytes) -> None:
    try:
        call = read(document, behind)
    except BadRequestError as error:
        assert 400 <= error.status < 500  # noqa: PT017 - either outcome is right
    else:
        assert len(call.message.raw_input_contents) == len(call.message.inputs) > 0


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError):
        read_inference(raw, json_length=None, model="m", version="", limits=LIMITS)


@given(JSON_VALUES)
def test_depth_is_that_of_the_parsed_value(value: Any) -> None:
    def depth(part: Any) -> int:
        if isinstance(part, dict):
            return 1 + max(map(depth, part.values()), default=0)
        return 1 + max(map(depth, part), default=0) if isinstance(part, list) else 0

    assert depth_of(json.dumps(value).encode(), most=1000) == depth(value)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b'{"a":"' + b"\\" * 9_999,
        b"9" * 10_000,
        b'{"id": ' + b"9" * 10_000 + b"}",
        b'"' * 9_999,
        b'{"inputs": [' + b"[" * 17 + b"]" * 17 + b"]}",
        b'{"id": "\\ud800", "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}]}',
        b"\xff\xfe{}",
        b'{"a": 1' + b" " * (1 << 14) + b"}",
    ],
    ids=["lists", "objects", "escapes", "digits", "digits inside", "quotes", "deep", "surrogate", "UTF-16", "long"],
)
def test_a_text_that_costs_more_than_it_says_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError):
        read_inference(raw, json_length=None, model="m", version="", limits=LIMITS)


@pytest.mark.parametrize("part", [b"{},", b"[],", b'"",'])
def test_many_small_parts_are_refused_before_they_are_built(part: bytes) -> None:
    few, many = (b'{"a": [' + part * count + b"0]}" for count in (1 << 9, 1 << 12))
    assert len(many) < LIMITS.json_bytes
    assert len(read_json_object(few, LIMITS)["a"]) == (1 << 9) + 1
    with pytest.raises(BadRequestError, match="flat lists") as caught:
        read_json_object(many, LIMITS)
    assert caught.value.status == 413


def test_parameters_are_few() -> None:
    entry = {"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}
    for count, refused in ((64, False), (65, True)):
        parameters = {f"p{number}": number for number in range(count)}
        for document in (
            {"inputs": [entry], "parameters": parameters},
            {"inputs": [{**entry, "parameters": parameters}]},
            {"inputs": [entry], "outputs": [{"name": "y", "parameters": parameters}]},
        ):
            with pytest.raises(BadRequestError, match="at most 64") if refused else contextlib.nullcontext():
                read(document)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32-le", "utf-32"])
def test_depth_does_not_hide_in_another_encoding(encoding: str) -> None:
    # In UTF-16 one byte of the letter looks like a quote, and all brackets behind it like those of a text.
    deep = "[" * 600 + "]" * 600
    text = f'{{"id": "\u0122", "inputs": [{{"name": "x", "shape": [0], "datatype": "FP32", "data": {deep}}}]}}'
    with pytest.raises(BadRequestError):
        read_inference(text.encode(encoding), json_length=None, model="m", version="", limits=LIMITS)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        *(("UINT8", [256]), ("UINT8", [-1]), ("INT32", [1.5]), ("INT64", [1 << 63]), ("BOOL", [2]), ("FP32", ["1"])),
        *(("FP32", [None]), ("FP32", [True]), ("FP32", [[1], [2, 3]]), ("FP32", []), ("FP32", 1), ("FP32", [1, 2])),
    ],
)
def test_values_that_the_type_does_not_have_are_refused(datatype: str, values: Any) -> None:
    with pytest.raises(BadRequestError, match="'x'"):
        read({"inputs": [{"name": "x", "shape": [1], "datatype": datatype, "data": values}]})


def test_brackets_in_texts_are_no_depth() -> None:
    assert read_json_object(json.dumps({"id": '[{"\\[' * 100}).encode(), LIMITS) == {"id": '[{"\\[' * 100}
