"""Wrapped networks, and networks that print: the network is what is in it, and standard output is the object's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.model_source.loading import load_weights
from edgefolio_pruner.model_source.wrappers import unwrapped, without_wrapper_names

WRAPPERS = {
    "parallel": nn.DataParallel,
    "compiled": torch.compile,
    "none": lambda module: module,
}


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)))


#: What was compiled twice is no module any more (torch 2.15).
NESTS = [nest for nest in itertools.product(WRAPPERS, repeat=3) if nest[:2] != ("compiled", "compiled")]


@pytest.mark.parametrize(("outer", "inner", "part"), NESTS)
def test_any_nest_of_wrappers_is_taken_off(outer: str, inner: str, part: str) -> None:
    plain = net()
    names = list(plain.state_dict())
    wrapped = net()
    wrapped.load_state_dict(plain.state_dict())
    wrapped[1] = WRAPPERS[part](wrapped[1])
    found = unwrapped(WRAPPERS[outer](WRAPPERS[inner](wrapped)), field="f", name="n")
    assert list(found.state_dict()) == names
    samples = torch.randn(3, 1, 4, 4)
    torch.testing.assert_close(found(samples), plain(samples))


def test_a_module_that_was_compiled_in_place_runs_as_it_is() -> None:
    module = net()
    module.compile()
    found = unwrapped(module, field="f", name="n")
    assert found._compiled_call_impl is None


@pytest.mark.parametrize("part", [False, True])
def test_torchscript_is_refused(part: bool) -> None:
    with pytest.warns(FutureWarning, match="torch.jit.trace"):
        scripted = torch.jit.trace(net()[1], torch.zeros(1, 4, 2, 2))
    module = nn.Sequential(net()[0], scripted) if part else scripted
    with pytest.raises(UserError, match="TorchScript"):
        unwrapped(module, field="f", name="n")


@pytest.mark.parametrize(("outer", "part"), list(itertools.product(WRAPPERS, repeat=2)))
def test_weights_that_were_saved_from_a_wrapped_network_are_taken(outer: str, part: str, tmp_path) -> None:
    plain, wrapped = net(), net()
    wrapped[1] = WRAPPERS[part](wrapped[1])
    state = WRAPPERS[outer](wrapped).state_dict()
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    load_weights(plain, tmp_path / "w.safetensors")
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, state[next(key for key in state if key.endswith(name[2:]) and name[0] in key)])


def test_names_that_would_meet_stay_as_they_are() -> None:
    tensor = torch.zeros(1)
    for state in ({"module.a": tensor, "_orig_mod.a": tensor}, {"module.a": tensor, "a": tensor}, {"module.b": tensor}):
        assert without_wrapper_names(state, {"a"}) == state


FACTORY = """
import os, torch
from torch import nn
print("imported")

class Printing(nn.Module):
    def __init__(self):
        super().__init__()
        first, second = nn.Conv2d(1, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.head = nn.Linear(24, 2)

    def forward(self, images):
        print("forward")
        os.write(1, b"from a library\\n")
        return self.head(self.layers(images).mean((2, 3)))

def build():
    print("built")
    return nn.DataParallel(Printing())
"""


def test_a_printing_wrapped_network_that_is_always_right(edgefolio, portfolio_file, tmp_path) -> None:
    """Standard output is one JSON object, the wrapper is off, and the report of 13 right samples of 13 is drawn."""
    (tmp_path / "printing_net.py").write_text(FACTORY)
    labels = np.arange(130) % 2
    images = np.random.default_rng(0).integers(0, 60, (130, 8, 8), dtype=np.uint8) + (
        150 * labels[:, None, None]
    ).astype(np.uint8)
    np.savez(
        tmp_path / "d.npz",
        x=images[:104],
        y=labels[:104],
        x_validation=images[104:117],
        y_validation=labels[104:117],
        x_test=images[117:],
        y_test=labels[117:],
    )

    def change(document) -> None:
        spec = document["spec"]
        spec["source"]["architecture"] = {"library": "factory", "name": "printing_net:build"}
        spec["data"] = {"trainingURI": str(tmp_path / "d.npz"), "calibrationSamples": 64}
        spec["methods"] = {"sparseTraining": {"denseEpochs": 6, "levels": 0, "batchSize": 8, "augmentation": "None"}}
        spec["profiling"] = {"samples": 20, "rounds": 2}

    path = portfolio_file(change)
    finished = edgefolio(
        "make", "-f", path, "--work-dir", tmp_path / "w", "--repository", tmp_path / "r", "--json", cwd=tmp_path
    )
    assert finished.code == 0, finished.stderr
    (dense,) = finished.document["variants"]
    assert dense["testAccuracyPercent"] == 100
    assert dense["weakestClassRecallPercent"] == 100
    for text in ("imported", "built", "forward", "from a library", "2 classes in the order of the network's outputs"):
        assert text in finished.stderr
    assert "<svg" in (tmp_path / "w" / "report.html").read_text()
