"""Models from names and weights from safetensors: what fits is built, all else is one clear error."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from edgefolio.errors import UserError
from edgefolio.specification import Architecture
from edgefolio_pruner.architectures import BUILTIN
from edgefolio_pruner.model_source.loading import build_architecture, load_weights, parse_architecture, read_weights


def build(text: str, *options: str, seed: int = 0) -> torch.nn.Module:
    return build_architecture(parse_architecture(text, options), seed=seed)


@pytest.mark.parametrize(("name", "size"), [(name, 16 if name.startswith("vgg") else 8) for name in sorted(BUILTIN)])
def test_builtin_networks_give_logits_and_learn_everywhere(name: str, size: int) -> None:
    module = build(f"edgefolio:{name}", "in_channels=2", "num_classes=7", "width=8")
    if name == "mlp":
        module = build("edgefolio:mlp", "in_channels=2", "num_classes=7", "width=8", f"image_size={size}")
    logits = module(torch.randn(3, 2, size, size))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_depth_and_width_are_those_of_the_names() -> None:
    def layers(module: torch.nn.Module) -> int:
        main_way = [name for name, layer in module.named_modules() if isinstance(layer, torch.nn.Conv2d)]
        return len([name for name in main_way if "shortcut" not in name]) + 1

    for name, depth in {"resnet8": 8, "resnet20": 20, "resnet56": 56, "vgg11": 9, "vgg16": 14}.items():
        assert layers(build(f"edgefolio:{name}", "width=4")) == depth
    wide = build("edgefolio:resnet8", "width=12")
    assert wide.get_parameter("layer3.0.conv2.weight").shape == (48, 48, 3, 3)


def test_other_libraries_build_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm_net = build("timm:resnet10t", "in_chans=1", "num_classes=4", "drop_rate=0.25")
    assert timm_net.eval()(torch.randn(2, 1, 32, 32)).shape == (2, 4)
    assert timm_net.drop_rate == 0.25
    vision_net = build("torchvision:squeezenet1_1", "num_classes=4")
    assert vision_net.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 4)
    (tmp_path / "nets_of_a_user.py").write_text("import torch\ndef build(width):\n return torch.nn.Linear(width, 2)\n")
    monkeypatch.chdir(tmp_path)
    assert build("factory:nets_of_a_user:build", "width=5")(torch.randn(3, 5)).shape == (3, 2)


def test_the_seed_alone_decides_the_initial_weights() -> None:
    torch.manual_seed(1)
    first = build("edgefolio:cnn", seed=3).state_dict()
    state = torch.random.get_rng_state()
    second = build("edgefolio:cnn", seed=3).state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build("edgefolio:cnn", seed=4).state_dict()
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_the_form_of_the_command_line() -> None:
    parsed = parse_architecture("timm:resnet18", ["num_classes=10", "pool=avg", "flag=true", "none=none", "rate=0.5"])
    assert parsed == Architecture(
        library="timm",
        name="resnet18",
        options={"num_classes": 10, "pool": "avg", "flag": True, "none": None, "rate": "0.5"},
    )
    assert parse_architecture("factory:a.b:c").name == "a.b:c"


@pytest.mark.parametrize(
    ("text", "options", "field", "part"),
    [
        ("timm:resnet19", [], ".name", "resnet18"),
        ("edgefolio:resnet21", [], ".name", "resnet20"),
        ("torchvision:vg11", [], ".name", "vgg11"),
        ("edgefolio:resnet8", ["depth=3"], ".options", "depth"),
        ("edgefolio:resnet8", ["width=none"], ".options", "refused its options"),
        ("timm:resnet18", ["pretrained=true"], ".options", "pickle"),
        ("torchvision:resnet18", ["weights=DEFAULT"], ".options", "pickle"),
        ("factory:no_such_module:build", [], ".name", "cannot be imported"),
        ("factory:json", [], ".name", "module:callable"),
        ("factory:json:dumps", ["obj=1"], ".name", "torch.nn.Module"),
        ("factory:json:__name__", [], ".name", "callable"),
    ],
)
def test_wrong_architectures_name_field_value_and_remedy(text: str, options: list[str], field: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        build(text, *options)
    assert caught.value.field == f"spec.source.architecture{field}"
    assert part in caught.value.one_line()
    assert caught.value.value
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["resnet18", "keras:resnet", "timm:", ":resnet18"])
def test_wrong_forms_on_the_command_line(text: str) -> None:
    with pytest.raises(UserError, match="--architecture"):
        parse_architecture(text)
    with pytest.raises(UserError, match="--option"):
        parse_architecture("timm:resnet18", ["num_classes"])


def test_weights_come_back_from_safetensors(tmp_path: Path) -> None:
    trained = build("edgefolio:cnn", seed=1)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(trained.state_dict(), path)
    for uri in (path, f"file://{path}"):
        fresh = build("edgefolio:cnn", seed=2)
        load_weights(fresh, uri)
        assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in trained.state_dict().items())


def test_tied_weights_may_be_given_once(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
            self.second.weight = self.first.weight

    trained, fresh = Tied(), Tied()
    path = tmp_path / "tied.safetensors"
    safetensors.torch.save_model(trained, path)
    load_weights(fresh, path)
    assert torch.equal(fresh.second.weight, trained.first.weight)


def test_weights_that_do_not_fit_are_listed_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(build("edgefolio:cnn", "num_classes=5").state_dict() | {"extra": torch.zeros(2)}, path)
    module = build("edgefolio:cnn")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(module, path)
    assert "11.weight: 5x64 given, 10x64 wanted" in caught.value.problem
    assert "extra: 2 given, not wanted" in caught.value.problem
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(UserError) as caught:
        load_weights(build("edgefolio:resnet8"), path)
    assert caught.value.problem.count("wanted") == 10
    assert " more)" in caught.value.problem


class _Evil:
    """A pickle of it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_unread(tmp_path: Path, protocol: int) -> None:
    trap, path = tmp_path / "ran", tmp_path / "weights.bin"
    path.write_bytes(pickle.dumps(_Evil(trap), protocol=protocol))
    with pytest.raises(UserError, match="pickle"):
        read_weights(path)
    torch.save(build("edgefolio:cnn").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match="pickle"):
        read_weights(tmp_path / "weights.pt")
    assert not trap.exists()


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    state = build("edgefolio:cnn").state_dict()
    state["0.weight"][0, 0, 0, 0] = float("nan")
    safetensors.torch.save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match=r"0\.weight.*not finite"):
        read_weights(tmp_path / "nan.safetensors")
    whole = (tmp_path / "nan.safetensors").read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "text": b"hello", "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="no safetensors"):
            read_weights(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path / "absent")
    with pytest.raises(UserError, match="scheme"):
        read_weights("gopher9://host/weights.safetensors")


def test_a_factory_without_options_that_fails_is_not_told_of_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_nets.py").write_text("def build(width=None):\n    raise KeyError('weights')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="failed: KeyError: 'weights'") as caught:
        build_architecture(parse_architecture("factory:failing_nets:build"))
    assert caught.value.field == "spec.source.architecture.name"
    with pytest.raises(UserError, match="refused its options"):
        build_architecture(parse_architecture("factory:failing_nets:build", ["width=3"]))
