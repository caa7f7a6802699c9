"""The second-order loss of an error inside the net against the divergence that it causes at the output."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgefolio_pruner.calibrating.graph_run import GraphRun
from edgefolio_pruner.calibrating.linear_maps import linear_maps
from edgefolio_pruner.oneshot.output_losses import output_losses
from edgefolio_pruner.spatial import capture

torch.set_num_threads(1)


class Net(nn.Module):
    """Two convolutions on a skip, a pool and a head."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.stem(images))
        hidden = functional.relu(hidden + self.inner(hidden))
        return 3 * self.head(functional.adaptive_avg_pool2d(hidden, 1).flatten(1))


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("layer", ["stem", "inner"])
def test_noise_costs_what_is_predicted(layer: str, outputs: int) -> None:
    torch.manual_seed(1)
    images = torch.randn(400, 1, 6, 6)
    captured = capture(Net(outputs).eval(), (images[:2],))
    graph, state = captured.graph_module.graph, captured.parameters
    maps, _ = linear_maps(graph, state)
    (linear,) = (linear for linear in maps if linear.layer == layer)
    predicted = output_losses(graph, state, images.split(64), maps, seed=0)[layer]
    output = next(node for node in reversed(graph.nodes) if node.op == "output").all_input_nodes[0]
    size = 0.05
    with torch.no_grad():
        runs = [GraphRun(graph, state, [images], hold=[(output, output), *linear.held]) for _ in range(2)]
        for run in runs:
            run.advance(linear.end)
        (end,) = runs[1].values(linear.end)
        end += size * torch.randn(end.shape)
        for run in runs:
            run.advance(output)
        before, after = (run.values(output)[0] for run in runs)
    if outputs == 1:
        measured = float((after - before).square().mean())
        expected = size**2 * float(predicted.sum())
    else:
        logs = [torch.log_softmax(values.double(), 1) for values in (before, after)]
        measured = float((logs[0].exp() * (logs[0] - logs[1])).sum(1).mean())
        expected = size**2 * float(predicted.sum()) / 2
    assert measured == pytest.approx(expected, rel=0.35)


def test_a_map_whose_output_nothing_reads_costs_nothing() -> None:
    torch.manual_seed(2)
    net = Net(4).eval()
    with torch.no_grad():
        net.head.weight[:, 2] = 0
    images = torch.randn(32, 1, 6, 6)
    captured = capture(net, (images[:2],))
    maps, _ = linear_maps(captured.graph_module.graph, captured.parameters)
    losses = output_losses(captured.graph_module.graph, captured.parameters, [images], maps, seed=0)
    assert float(losses["inner"][2]) == 0
    assert bool((losses["head"] > 0).all())


def losses_of(net: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    captured = capture(net.eval(), (images[:2],))
    graph, state = captured.graph_module.graph, captured.parameters
    return output_losses(graph, state, [images], linear_maps(graph, state)[0], seed=0)


def test_probabilities_cost_what_their_logits_do() -> None:
    torch.manual_seed(1)
    net, images = Net(4), torch.randn(200, 1, 6, 6)
    logits = losses_of(nn.Sequential(net), images)
    for same in (nn.Softmax(1), nn.Softmax(-1), nn.LogSoftmax(1)):
        found = losses_of(nn.Sequential(net, same), images)
        assert all(torch.allclose(found[layer], logits[layer], rtol=1e-4) for layer in logits)


@pytest.mark.parametrize("outputs", [1, 5])
def test_labels_behind_a_sigmoid_cost_their_own_divergence(outputs: int) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, outputs), nn.Sigmoid())
    images = 2 * torch.randn(4000, 1, 6, 6)
    with torch.no_grad():
        probabilities = net(images).double()
    # The variance of a label is the curvature of its log probability in the logit.
    wanted = (probabilities * (1 - probabilities)).mean(0)
    assert torch.allclose(losses_of(net, images)["1"], wanted, rtol=0.1)
