"""A portfolio whose source is an ONNX file: what it is understood as, its keys, and errors by its own field."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import numpy as np
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
