"""A portfolio whose source is an ONNX file: what it is understood as, its keys, and errors by its own field."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import numpy as np
import onnxruntime
import pytest
from hub_server import COMMIT, served
from onnx_graphs import model, node, written

from edgefolio.errors import UserError
from edgefolio.specification import ModelPortfolio
from edgefolio_operator.resources.pruning_job import claims_in
from edgefolio_pruner.inputs import load_source
from edgefolio_pruner.model_source.hub import HubModel
from edgefolio_pruner.onnx_source.model_file import read_model_file
from edgefolio_pruner.pipeline import make_portfolio
from edgefolio_pruner.progress import no_progress
from edgefolio_pruner.shrinking import shrink_model

RANDOM = np.random.default_rng(0)


def portfolio(folder: Path, uri: str) -> ModelPortfolio:
    np.savez(folder / "data.npz", x=RANDOM.standard_normal((60, 6)).astype(np.float32), y=np.arange(60) % 3)
    return ModelPortfolio.model_validate(
        {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "rows"},
            "spec": {
                "source": {"modelURI": uri},
                "data": {"trainingURI": str(folder / "data.npz"), "calibrationSamples": 32},
                "methods": {"oneShot": {}},
                "repository": {"uri": str(folder / "portfolios")},
                "serving": {"modelName": "rows"},
            },
        }
    )


def classifier(classes: int, *, factor: float = 1.0) -> bytes:
    weights = {"w": factor * np.ones((16, 6)), "v": np.ones((classes, 16))}
    nodes = [node("Gemm", "x", "w", out="h", transB=1), node("Relu", "h", out="r"), node("Gemm", "r", "v", transB=1)]
    return bytes(model(nodes, ("n", 6), weights).SerializeToString())


def test_it_is_known_by_its_bytes(tmp_path: Path) -> None:
    records = []
    for factor in (1.0, 2.0):
        (tmp_path / "model.onnx").write_bytes(classifier(3, factor=factor))
        source = load_source(portfolio(tmp_path, str(tmp_path / "model.onnx")), progress=no_progress)
        assert source.description == "onnx:model.onnx"
        assert source.initial_state is not None
        assert source.build_with(source.initial_state).state_dict().keys() == source.initial_state.keys()
        records.append(source.record)
    assert records[0]["file"] != records[1]["file"]
    assert records[0]["weights"] != records[1]["weights"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (classifier(2), "2 logits, the data has 3 classes"),
        (bytes(model([node("Relu", "x")], ("n", 3)).SerializeToString()), "samples of 3, not 6"),
        (
            bytes(model([node("Hardmax", "x")], ("n", 6)).SerializeToString()),
            "operator Hardmax .* is not known",
        ),
        (b"PK\x03\x04", "the model is refused"),
    ],
    ids=["classes", "samples", "operator", "bytes"],
)
def test_errors_name_its_field(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UserError, match=problem) as caught:
        make_portfolio(portfolio(tmp_path, str(tmp_path / "model.onnx")), work_directory=tmp_path / "work")
    assert caught.value.field.startswith("spec.source.modelURI")
    assert not (tmp_path / "portfolios").exists()


def test_a_claim_that_it_lies_on_is_mounted(tmp_path: Path) -> None:
    assert claims_in(portfolio(tmp_path, "pvc://models/model.onnx").spec) == ("models",)


def test_a_file_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    uri = f"hf://own/net@{COMMIT}"
    with served() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        server.models["own/net"] = {"model.onnx": classifier(3)}
        assert read_model_file(f"{uri}/model.onnx", field="--model").sample_shape == (6,)
        with pytest.raises(UserError, match="names no ONNX file"):
            read_model_file(uri, field="--model")
    with pytest.raises(UserError, match="holds network and weights") as caught:
        HubModel.of(f"{uri}/model.onnx", field="spec.source.weightsURI").weights()
    assert "source.modelURI" in caught.value.remedy


def test_a_stranger_s_name_is_shown_as_text(tmp_path: Path) -> None:
    path = written(model([node("Relu", "x")], ("n", 6)), tmp_path / "a\x1b[31m.onnx")
    assert "\x1b" not in read_model_file(path, field="--model").description


def two_headed(given: str, names: tuple[str, ...]) -> bytes:
    """A classifier whose input and outputs are called so; it has values called ``relu`` and ``h``."""
    weights = {"w": np.random.default_rng(4).standard_normal((16, 6)), "v": np.arange(48.0).reshape(3, 16) % 7 - 3}
    nodes = [node("Gemm", "x", "w", out="h", transB=1), node("Relu", "h", out="relu")]
    nodes += [
        node("Gemm", "relu", "v", out=names[0], transB=1),
        *(node("Tanh", names[0], out=name) for name in names[1:]),
    ]
    found = model(nodes, ("n", 6), weights, outputs=names)
    found.graph.input[0].name = found.graph.node[0].input[0] = given
    return bytes(found.SerializeToString())


@pytest.mark.parametrize(
    ("given", "names", "input_name", "output_names"),
    [
        ("images", ("logits",), "images", ("logits",)),
        ("serving_default_x:0", ("StatefulPartitionedCall:1", "a/b"), "serving_default_x:0", None),
        ("linear", ("relu_1", "tanh"), "linear", None),
        ("bild größe", ("a b",), "input", ("output",)),
        ("x", ("a b", "c"), "x", ("output_0", "output_1")),
    ],
)
def test_names_of_the_file_are_those_of_requests(
    given: str, names: tuple[str, ...], input_name: str, output_names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(two_headed(given, names))
    source = load_source(portfolio(tmp_path, str(tmp_path / "model.onnx")), progress=no_progress)
    assert source.data.input_names == (input_name,)
    assert source.output_names == (output_names or names)
    told = [note for note in source.notes if "names of the ONNX file" in note]
    assert len(told) == (given != input_name or names != source.output_names)
    file = read_model_file(tmp_path / "model.onnx", field="--model")
    shrink_model(
        file.build(),
        input_shapes={source.data.input_names[0]: (6,)},
        output_names=source.output_names,
        output=tmp_path / "out.onnx",
        latency_samples=0,
    )
    samples = RANDOM.standard_normal((4, 6)).astype(np.float32)
    sessions = [onnxruntime.InferenceSession(tmp_path / name) for name in ("model.onnx", "out.onnx")]
    wanted = sessions[0].run(None, {given: samples})
    found = sessions[1].run(list(source.output_names), {input_name: samples})
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_portfolio_is_served_under_the_names_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(two_headed("pixels", ("scores",)))
    wanted = portfolio(tmp_path, str(tmp_path / "model.onnx"))
    rows = RANDOM.standard_normal((60, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    # Trained, so to say: the labels are its own answers.
    (scores,) = session.run(None, {"pixels": rows})
    np.savez(tmp_path / "data.npz", x=rows, y=scores.argmax(1) if len(set(scores.argmax(1))) > 1 else rows[:, 0] > 0)
    spec = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
    spec["spec"]["data"] |= {"normalization": {"mean": ["0"], "standardDeviation": ["1"]}}
    spec["spec"]["methods"] = {"oneShot": {"macsPercent": [50]}, "quantization": {"precision": "Int8"}}
    spec["spec"]["profiling"] = {"samples": 20, "rounds": 2}
    made = make_portfolio(ModelPortfolio.model_validate(spec), work_directory=tmp_path / "work")
    assert [tensor.name for tensor in made.manifest.signature.inputs] == ["pixels"]
    assert [tensor.name for tensor in made.manifest.signature.outputs] == ["scores"]
    for variant in made.manifest.variants:
        assert variant.probe.inputs[0].name == "pixels"
