"""Weights as people have them: under any prefix, averaged, masked, or as the parts of a norm."""

from __future__ import annotations

import copy
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from edgefolio.errors import UserError
from edgefolio.specification import Architecture
from edgefolio_pruner.model_source.loading import build_architecture, load_weights, parse_architecture
from edgefolio_pruner.model_source.weight_forms import plain_module, plain_weights

State = dict[str, Tensor]
SAMPLES = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, 2),
        nn.Flatten(),
        nn.Linear(4 * 144, 5),
    )


def layers(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]


def each(wrap: Callable[[nn.Module], Any]) -> Callable[[nn.Module], None]:
    def change(module: nn.Module) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the older forms are deprecated, not gone
            for part in layers(module):
                wrap(part)

    return change


FORMS: dict[str, Callable[[nn.Module], None]] = {
    "weight norm": each(parametrizations.weight_norm),
    "weight norm of the last axis": each(lambda part: parametrizations.weight_norm(part, dim=1)),
    "spectral norm": each(parametrizations.spectral_norm),
    "older weight norm": each(nn.utils.weight_norm),
    "older weight norm of all": each(lambda part: nn.utils.weight_norm(part, dim=None)),
    "older spectral norm": each(nn.utils.spectral_norm),
    "masks": each(lambda part: prune.l1_unstructured(part, "weight", amount=0.4)),
    "two masks": each(
        lambda part: prune.ln_structured(
            prune.l1_unstructured(part, "weight", amount=0.2), "weight", amount=0.5, n=2, dim=0
        )
    ),
    "masks of biases": each(lambda part: prune.random_unstructured(part, "bias", amount=0.5)),
}


def trained(form: str) -> nn.Module:
    """A network in this form whose norms have seen some batches."""
    torch.manual_seed(0)
    module = net()
    FORMS[form](module)
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        module(SAMPLES).square().sum().backward()
        optimizer.step()
    return module.eval()


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_network_that_is_built_in_such_a_form_becomes_plain(form: str) -> None:
    module = trained(form)
    wanted = module(SAMPLES)
    found = plain_module(module).eval()
    assert set(found.state_dict()) == set(net().state_dict())
    torch.testing.assert_close(found(SAMPLES), wanted, rtol=1e-5, atol=1e-5)
    # What is no parameter would not be trained.
    assert {name for name, _ in found.named_parameters()} == {name for name, _ in net().named_parameters()}
    assert all(parameter.requires_grad for parameter in found.parameters())


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_weights_that_are_frozen_stay_frozen(wrap: Callable[[nn.Module], Any]) -> None:
    module = net()
    wrap(module[0].requires_grad_(False))
    wrap(module[3])
    plain = plain_module(module)
    assert not plain[0].weight.requires_grad
    assert plain[3].weight.requires_grad


class Positive(nn.Module):
    """A parametrization that nobody else has."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.exp()


def parametrized_net() -> nn.Module:
    module = net()
    for part in layers(module)[:2]:
        parametrize.register_parametrization(part, "weight", Positive())
    parametrizations.orthogonal(module[5])
    return module


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_weights_in_the_own_parametrizations_of_a_network_are_computed_by_it(prefix: str, tmp_path: Path) -> None:
    sys.modules["options_of_a_test"] = module_of(parametrized_net)
    architecture = Architecture(library="factory", name="options_of_a_test:parametrized_net")
    torch.manual_seed(3)
    module = parametrized_net().eval()
    state = {f"{prefix}{name}": tensor.clone().contiguous() for name, tensor in module.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    found = build_architecture(architecture)
    load_weights(found, tmp_path / "w.safetensors", architecture=architecture)
    torch.testing.assert_close(found.eval()(SAMPLES), module(SAMPLES), rtol=1e-5, atol=1e-5)
    # Plain weights of the same network still fit, and others still do not.
    safetensors.torch.save_file({name: tensor.clone() for name, tensor in found.state_dict().items()}, tmp_path / "p")
    load_weights(found, tmp_path / "p", architecture=architecture)
    state.pop(next(iter(state)))
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="don't fit"):
        load_weights(found, tmp_path / "w.safetensors", architecture=architecture)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.backbone."])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_weights_that_are_saved_in_such_a_form_are_taken(form: str, prefix: str) -> None:
    module = trained(form)
    wanted = module(SAMPLES)
    state = {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}
    plain = net()
    found, notes = plain_weights(state, plain.state_dict())
    assert found.keys() == plain.state_dict().keys()
    assert notes
    plain.load_state_dict(found)
    torch.testing.assert_close(plain.eval()(SAMPLES), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("module.", {}),
        ("_orig_mod.", {}),
        ("model.", {"criterion.weight": torch.ones(5)}),
        ("module.model.", {"epoch": torch.tensor(3)}),
        ("state_dict.", {}),
        ("student.", {"teacher.0.weight": torch.ones(3)}),
    ],
)
def test_any_one_prefix_is_taken_off(prefix: str, others: State, tmp_path: Path) -> None:
    module = net()
    safetensors.torch.save_file(
        {f"{prefix}{name}": tensor.clone() for name, tensor in module.state_dict().items()} | others,
        tmp_path / "w.safetensors",
    )
    fresh = net()
    load_weights(fresh, tmp_path / "w.safetensors")
    assert all(
        torch.equal(one, two)
        for one, two in zip(fresh.state_dict().values(), module.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("average", ["ema_model.", "model_ema.", "ema."])
def test_of_averaged_and_trained_weights_the_averaged_are_taken(average: str) -> None:
    trained_state, averaged = net().state_dict(), net().state_dict()
    state = {f"model.{name}": tensor for name, tensor in trained_state.items()}
    state |= {f"{average}{name}": tensor for name, tensor in averaged.items()}
    found, notes = plain_weights(state, averaged)
    assert all(torch.equal(found[name], averaged[name]) for name in averaged)
    assert average in notes[0]


def test_two_prefixes_are_no_choice_to_make() -> None:
    state = {
        f"{prefix}.{name}": tensor for prefix in ("first", "second") for name, tensor in net().state_dict().items()
    }
    found, notes = plain_weights(state, net().state_dict())
    assert found == state
    assert notes == ()


def test_plain_weights_stay_as_they_are() -> None:
    state = net().state_dict()
    found, notes = plain_weights(state, state)
    assert found == state
    assert notes == ()
    # A network may call its own weights so.
    for name in ("scale_g", "scale_v", "a_mask", "a_orig", "b_u"):
        state[name] = torch.ones(3)
    assert plain_weights(state, state)[0] == state


def test_names_that_do_not_fit_are_shown_beside_those_that_are_wanted(tmp_path: Path) -> None:
    state = {f"first.{name}": tensor.clone() for name, tensor in net().state_dict().items()}
    del state["first.0.weight"]
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as caught:
        load_weights(net(), tmp_path / "w.safetensors")
    line = caught.value.one_line()
    assert "0.weight: missing" in line
    assert line.count("first.") == line.count("given, not wanted") >= 4


def options_net(p: float = 0.0, widths: Any = (), deep: bool = False, **others: Any) -> nn.Module:
    module = net()
    module.given = {"p": p, "widths": widths, "deep": deep, **others}
    return module


def module_of(function: Any) -> types.ModuleType:
    """A module that holds ``function`` alone: tests are collected by path, and cannot be imported by name."""
    module = types.ModuleType("options_of_a_test")
    setattr(module, function.__name__, function)
    return module


def test_options_are_numbers_and_lists() -> None:
    given = {"p": 0.25, "widths": [24, 48], "deep": True, "rate": 1e-4, "names": ["a", "b"], "halves": [0.5, 1.0]}
    architecture = Architecture.model_validate({"library": "factory", "name": "nets:build", "options": given})
    again = Architecture.model_validate(architecture.model_dump(mode="json"))
    assert again == architecture
    sys.modules["options_of_a_test"] = module_of(options_net)
    built = build_architecture(
        Architecture(library="factory", name="options_of_a_test:options_net", options=architecture.options)
    )
    assert built.given == given
    written = {"a": ".5", "b": "1e-3", "c": "2.", "d": "-1.5E+2", "e": "resnet50.1", "f": "e3"}
    text = Architecture(library="factory", name="options_of_a_test:options_net", options=written)
    assert build_architecture(text).given["a"] == 0.5
    assert [build_architecture(text).given[name] for name in "bcdef"] == [1e-3, 2.0, -150.0, "resnet50.1", "e3"]
    line = parse_architecture("factory:a:b", ["widths=[24,48]", "p=0.25", "names=[a, b]"])
    assert line.options == {"widths": (24, 48), "p": "0.25", "names": ("a", "b")}


@pytest.mark.parametrize("value", [[[1]], {"a": 1}, float("nan"), float("inf"), [1] * 65])
def test_other_options_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"options"):
        Architecture.model_validate({"library": "factory", "name": "a:b", "options": {"p": copy.copy(value)}})
