"""Configurations are Triton's own, in both of its forms."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import json_format, text_format
from triton_portfolios import draft, revealing_model
from tritonclient.grpc import model_config_pb2

from edgefolio.manifest import Manifest, TensorSignature
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.triton_configuration import as_json, as_text, configuration_of, is_text_of


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return draft([revealing_model(1)])


def _with_signature(manifest: Manifest, **tensors: tuple[TensorSignature, ...]) -> Manifest:
    return manifest.model_copy(update={"signature": manifest.signature.model_copy(update=dict(tensors))})


@pytest.mark.parametrize("warm_up", [False, True])
def test_text_and_json_say_the_same(manifest: Manifest, warm_up: bool) -> None:
    signature = (
        TensorSignature(name='odd "name"\\ for a tensor', datatype="INT64", shape=(-1, 3)),
        TensorSignature(name="scalar", datatype="BOOL", shape=()),
    )
    odd = _with_signature(manifest, inputs=signature)
    configuration = configuration_of(odd, model_name="m", threads=3, versions=[202, 101], warm_up=warm_up)
    from_json = json_format.Parse(as_json(configuration), model_config_pb2.ModelConfig())
    from_text = text_format.Parse(as_text(configuration), model_config_pb2.ModelConfig())
    assert from_json == from_text
    assert from_text.name == "m"
    assert from_text.backend == "onnxruntime"
    assert list(from_text.version_policy.specific.versions) == [101, 202]
    assert [(entry.count, entry.kind) for entry in from_text.instance_group] == [(1, 2)]
    assert from_text.input[0].name == signature[0].name
    assert list(from_text.input[0].dims) == [-1, 3]
    assert list(from_text.input[1].dims) == [1]
    assert list(from_text.input[1].reshape.shape) == []
    assert from_text.parameters["intra_op_thread_count"].string_value == "3"
    assert len(from_text.model_warmup) == (1 if warm_up else 0)


#: ``config.pbtxt`` as it was written before protobuf's own writer: other order, lists in brackets.
OLD_TEXT = b"""name: "m"
backend: "onnxruntime"
max_batch_size: 64
input {
  name: "image"
  data_type: TYPE_FP32
  dims: [1, 12, 12]
}
output {
  name: "logits"
  data_type: TYPE_FP32
  dims: [4]
}
instance_group {
  count: 1
  kind: KIND_CPU
}
version_policy {
  specific {
    versions: [101]
  }
}
parameters {
  key: "intra_op_thread_count"
  value {
    string_value: "3"
  }
}
parameters {
  key: "inter_op_thread_count"
  value {
    string_value: "1"
  }
}
parameters {
  key: "session.intra_op.allow_spinning"
  value {
    string_value: "0"
  }
}
"""


@pytest.mark.parametrize("text", [b"", b"name: ", b"\xff", OLD_TEXT.replace(b"101", b"102"), b"unknown: 1"])
def test_another_text_is_not_taken_for_the_configuration(manifest: Manifest, text: bytes) -> None:
    configuration = configuration_of(manifest, model_name="m", threads=3, versions=[101])
    assert not is_text_of(text, configuration)


def test_a_file_of_the_version_before_is_left_alone(manifest: Manifest, tmp_path: Path) -> None:
    store = ModelStore(tmp_path, model="m", threads=3)
    path = store.model_directory / "config.pbtxt"
    path.parent.mkdir(parents=True)
    path.write_bytes(OLD_TEXT)
    store.write_configuration(manifest)
    assert path.read_bytes() == OLD_TEXT
    ModelStore(tmp_path, model="m", threads=2).write_configuration(manifest)
    assert b'string_value: "2"' in path.read_bytes()
    assert path.read_bytes() != OLD_TEXT
