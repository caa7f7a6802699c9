"""Weights of the Hugging Face Hub, from a server that speaks its protocol: pinned, safetensors alone, and offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from hub_server import COMMIT, HubServer, served

from edgefolio.errors import TransientError, UserError
from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.inputs import load_source
from edgefolio_pruner.model_source.loading import build_architecture, load_weights, parse_architecture, read_weights
from edgefolio_pruner.progress import no_progress

URI = f"hf://own/net@{COMMIT}"
STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with served() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        server.models["own/net"] = {"model.safetensors": safetensors.torch.save(STATE)}
        yield server


def test_weights_are_fetched_once_and_then_read_from_the_cache(hub: HubServer) -> None:
    found = read_weights(URI)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)
    hub.status = 503
    again = read_weights(URI)
    assert all(torch.equal(again[name], STATE[name]) for name in STATE)


def test_weights_in_several_files_and_in_a_file_of_another_name(hub: HubServer) -> None:
    hub.models["own/net"] = {
        "model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
        ).encode(),
        "one.safetensors": safetensors.torch.save({"a": STATE["a"]}),
        "two.safetensors": safetensors.torch.save({"b": STATE["b"]}),
    }
    assert read_weights(URI).keys() == STATE.keys()
    assert read_weights(f"{URI}/two.safetensors").keys() == {"b"}


@pytest.mark.parametrize(
    ("uri", "problem", "remedy"),
    [
        ("hf://own/net", "names no commit", f"now {COMMIT}"),
        ("hf://own/net@main", "'main', which may change", f"now {COMMIT}"),
        ("hf://own/absent", "names no commit", "40 digits"),
        ("hf://net", "names no model", "hf://organization/model@commit"),
        (f"{URI}/pytorch_model.bin", "names no model", "hf://organization/model@commit"),
        (f"hf://own/absent@{COMMIT}", "no such model or commit", "HF_TOKEN"),
        (f"hf://own/net@{'f' * 40}", "no such model or commit", "HF_TOKEN"),
        (f"{URI}/other.safetensors", "has no other.safetensors", "Correct"),
    ],
)
def test_what_names_no_model(hub: HubServer, uri: str, problem: str, remedy: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        read_weights(uri)
    assert not isinstance(caught.value, TransientError)
    assert caught.value.field == "spec.source.weightsURI"
    assert caught.value.value == uri
    assert remedy in caught.value.remedy


def test_pickles_and_broken_files_are_refused(hub: HubServer) -> None:
    hub.models["own/net"] = {"pytorch_model.bin": b"\x80\x02"}
    with pytest.raises(UserError, match=r"has no model\.safetensors") as caught:
        read_weights(URI)
    assert "pickles" in caught.value.remedy
    assert not any("pytorch_model" in path for path in hub.requests)
    hub.models["own/net"] = {"model.safetensors.index.json": b'{"weight_map": {"a": "../../etc/passwd"}}'}
    with pytest.raises(UserError, match="names files that are no safetensors"):
        read_weights(URI)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_may_recover(hub: HubServer, status: int) -> None:
    hub.status = status
    with pytest.raises(TransientError) as caught:
        read_weights(URI)
    assert caught.value.field == "spec.source.weightsURI"


def test_without_a_hub_the_remedy_is_a_mirror(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TransientError) as caught:
        read_weights(URI)
    assert "HF_ENDPOINT" in caught.value.remedy


def test_a_model_of_timm_with_its_own_configuration(hub: HubServer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=3)
    configuration = {
        "architecture": "test_resnet",
        "num_classes": 3,
        "label_names": ["ant", "bee", "cat"],
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 32, 32], "crop_pct": 1.0},
    }
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    hub.models["own/net"] = {
        "model.safetensors": safetensors.torch.save(state),
        "config.json": json.dumps(configuration).encode(),
    }
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=pictures, y=np.array(["cat", "ant", "bee"] * 20))
    source = load_source(portfolio(tmp_path / "d.npz"), progress=no_progress)
    assert source.data.preprocessing.mean == (0.1, 0.2, 0.3)
    assert source.data.preprocessing.std == (0.4, 0.5, 0.6)
    assert source.data.class_names == ("ant", "bee", "cat")
    assert source.initial_state is not None
    assert all(torch.equal(source.initial_state[name], state[name]) for name in state)


def portfolio(data: Path) -> ModelPortfolio:
    spec: dict[str, Any] = {
        "source": {
            "architecture": {"library": "timm", "name": "test_resnet", "options": {"num_classes": 3}},
            "weightsURI": URI,
        },
        "data": {"trainingURI": str(data)},
        "methods": {"oneShot": {}},
        "repository": {"uri": "./portfolios"},
        "serving": {"modelName": "own"},
    }
    return ModelPortfolio.model_validate(
        {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "own"}, "spec": spec}
    )


def test_names_of_the_hub_for_an_architecture_say_what_to_write(hub: HubServer) -> None:
    with pytest.raises(UserError) as caught:
        build_architecture(parse_architecture("timm:hf_hub:timm/resnet18.a1_in1k"))
    assert "hf://timm/resnet18.a1_in1k@COMMIT" in caught.value.remedy
    assert "resnet18)" in caught.value.remedy
    with pytest.raises(UserError, match="names no commit"):
        load_weights(torch.nn.Linear(1, 1), "hf://own/net", field="--weights")
