"""Values that every worker has, as the input, are taken in parts where they meet channels that one worker owns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from divided_nets import any_ownership, difference, in_torch
from torch import nn
from torch.nn import functional

from edgefolio_pruner.spatial import capture
from edgefolio_pruner.split.channels.ownership import masked
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.making import make_split
from edgefolio_split.executor import SplitExecutor

SHARES = [(50, 50), (50, 30, 20)]
Form = Callable[["Taking", torch.Tensor], torch.Tensor]
FORMS: dict[str, Form] = {
    "joined behind": lambda net, x: torch.cat([functional.relu(net.first(x)), x], 1),
    "joined in front": lambda net, x: torch.cat([x, functional.relu(net.first(x))], 1),
    "added and joined": lambda net, x: torch.cat([functional.relu(net.first(x) + x), x], 1),
    "added in two layers": lambda net, x: torch.cat(
        [functional.relu(net.second(functional.relu(net.first(x) + x)) + x), x], 1
    ),
    "multiplied": lambda net, x: torch.cat([functional.relu(net.first(x) * x), x], 1),
    "one channel spread": lambda net, x: torch.cat([functional.relu(net.first(x) + x[:, :1]), x], 1),
    "joined, then added": lambda net, x: (
        torch.cat([functional.relu(net.first(x)), x], 1) + torch.cat([x, net.first(x)], 1)
    ),
    "a gate": lambda net, x: torch.cat([net.first(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)), x], 1),
}


class Taking(nn.Module):
    """The input itself meets the first layers' channels, in one of these forms, and two layers follow."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.first, self.second = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.third, self.last = nn.Conv2d(12, 8, 3, padding=1), nn.Linear(8 * 16, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(functional.relu(self.third(self.form(self, inputs))).flatten(1))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("keep", [1.0, 0.4, 0.0])
def test_what_everybody_has_is_taken_in_parts(form: Form, keep: float) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    inputs = torch.randn(4, 6, 4, 4)
    captured = capture(Taking(form).eval(), (inputs[:2],))
    divided = divide(captured)
    for seed, shares in enumerate(SHARES):
        ownership = any_ownership(divided, shares, seed, keep)
        net = captured.with_state(masked(divided, ownership, dict(captured.parameters)))
        assert difference(in_torch(net, ownership, inputs), net.graph_module, inputs) < 1e-5


@pytest.mark.parametrize("keep", [1.0, 0.4])
def test_inputs_that_are_added_and_joined_are_taken_in_parts(keep: float) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(4, 6, 4, 4)
    captured = capture(Taking(FORMS["added and joined"]).eval(), (inputs[:2],))
    divided = divide(captured)
    ownership = any_ownership(divided, (50, 50), 0, keep)
    state = masked(divided, ownership, dict(captured.parameters))
    split = make_split(captured, ownership, state=state, shares=(50, 50))
    answer = SplitExecutor(split.plan, lambda name: split.files[name]).run(inputs.numpy())
    assert difference(answer.outputs[0], captured.with_state(state).graph_module, inputs) < 1e-5
