"""Capturing: the graph computes what the module does, under the module's own names."""

from __future__ import annotations

import pytest
import torch
from spatial_support.nets import flat, lively
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.spatial import CaptureRefused, capture, count_macs


class Branches(nn.Module):
    """In-place operators, views, a tied weight, constants and a nested output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.full((1,), 0.25), persistent=False)

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        y = self.norm(self.conv(x)).relu_()
        front = y[:, :4]
        front += 1
        y.mul_(torch.tensor(2.0, dtype=x.dtype)).add_(self.shift)
        pooled = self.second(self.first(y.mean((2, 3))))
        return {"pooled": pooled, "maps": (front, y)}


def test_the_graph_computes_what_the_module_computes() -> None:
    module = lively(Branches())
    captured = capture(module, (torch.randn(1, 3, 6, 6, dtype=torch.float64),))
    for batch in (1, 4):
        inputs = torch.randn(batch, 3, 6, 6, dtype=torch.float64)
        expected, got = module(inputs), captured.graph_module(inputs)
        assert list(got) == ["pooled", "maps"]
        assert isinstance(got["maps"], tuple)
        torch.testing.assert_close(flat(got), flat(expected), rtol=0, atol=0)


def test_weights_keep_their_names_and_tied_ones_are_held_once() -> None:
    captured = capture(Branches(), (torch.randn(2, 3, 6, 6),))
    assert set(captured.parameters) >= {"conv.weight", "norm.running_var", "first.weight", "second.bias", "shift"}
    assert captured.aliases == {"second.weight": "first.weight"}
    assert "second.weight" not in captured.parameters


def test_the_module_is_left_alone() -> None:
    module = Branches().train()
    module.norm.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    captured = capture(module, (torch.randn(2, 3, 6, 6),))
    captured.graph_module.get_parameter("conv.weight").zero_()
    assert module.training
    assert not module.norm.training
    assert module.conv.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_other_weights_need_no_second_export() -> None:
    first, second = lively(Branches()), lively(Branches())
    inputs = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    captured = capture(first, (inputs,))
    other = captured.with_state(second.state_dict())
    torch.testing.assert_close(flat(other.graph_module(inputs)), flat(second(inputs)), rtol=0, atol=0)
    torch.testing.assert_close(flat(captured.graph_module(inputs)), flat(first(inputs)), rtol=0, atol=0)


def test_weights_that_do_not_fit_are_named() -> None:
    captured = capture(Branches(), (torch.randn(2, 3, 6, 6),))
    state = Branches().state_dict()
    del state["norm.bias"]
    state["conv.weight"] = torch.zeros(8, 3, 5, 5)
    with pytest.raises(UserError, match=r"norm\.bias is missing") as caught:
        captured.with_state(state)
    assert "conv.weight has shape (8, 3, 5, 5), not (8, 3, 3, 3)" in caught.value.problem


class Undecided(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (Undecided(), (torch.randn(2, 3),)),
        (nn.Identity(), (torch.zeros(2, 3, dtype=torch.int64),)),
        (nn.Identity(), ()),
        (nn.Linear(4, 2), (torch.randn(2, 3),)),
    ],
    ids=["control flow", "integers", "no input", "wrong shape"],
)
def test_what_cannot_be_captured_is_refused(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(CaptureRefused) as caught:
        capture(module, inputs)
    assert caught.value.field == "model"
    assert caught.value.remedy


def test_height_and_width_can_stay_free() -> None:
    module = lively(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    captured = capture(module, (torch.randn(2, 3, 9, 8, dtype=torch.float64),), dynamic_size=True)
    inputs = torch.randn(3, 3, 13, 21, dtype=torch.float64)
    torch.testing.assert_close(captured.graph_module(inputs), module(inputs), rtol=0, atol=0)


def test_macs_are_those_of_one_sample() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    expected = 6 * 6 * 4 * 3 * 9 + 4 * 6 * 6 * 5
    assert count_macs(capture(module, (torch.randn(7, 3, 6, 6),))) == expected
    assert count_macs(module, ((3, 6, 6),)) == expected


def test_macs_of_a_net_that_makes_its_own_tensors() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x + torch.arange(6, dtype=x.dtype, device="cpu"))

    assert count_macs(Positions(), ((6,),)) == 24
    assert count_macs(capture(Positions(), (torch.randn(2, 6),))) == 24
