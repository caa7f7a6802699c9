"""What cannot end well is refused before the first epoch: networks that change, methods without anything to prune."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgefolio.errors import UserError
from edgefolio.manifest import Preprocessing
from edgefolio.specification import Architecture, OneShot
from edgefolio.specification.metric import Metric
from edgefolio_pruner.data.bundle import DataBundle, Split
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.methods import Method
from edgefolio_pruner.methods.one_shot import OneShotMethod
from edgefolio_pruner.scoring import Scoring
from edgefolio_pruner.stages.checks.rehearsal import rehearse
from edgefolio_pruner.stages.graph_cache import GraphCache

torch.set_num_threads(1)
NUMBERS = count(1)


class Net(nn.Module):
    """Two convolutions and a head; ``last`` is done to the logits."""

    def __init__(self, last: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 3)
        self.last = last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(images))))
        return self.last(self.head(hidden.mean((2, 3))))


class Shared(nn.Module):
    """One convolution used over and over: no group of channels has readers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.block = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.stem(images))
        for _ in range(3):
            hidden = hidden + torch.relu(self.block(hidden))
        return self.head(hidden.mean((2, 3)))


@dataclass(frozen=True, eq=False)
class Source(MakingSource):
    """A source whose network ``make`` builds."""

    make: Callable[[], nn.Module] = Net

    def build(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make()


def source(make: Callable[[], nn.Module]) -> Source:
    images = np.random.default_rng(0).normal(size=(12, 1, 8, 8)).astype(np.float32)
    split = Split(images=images, labels=np.arange(12) % 3, digest="0" * 64)
    data = DataBundle(
        name="d",
        train=split,
        validation=split,
        test=split,
        class_names=("a", "b", "c"),
        preprocessing=Preprocessing(mean=(0.0,), std=(1.0,)),
    )
    return Source(
        architecture=Architecture(library="factory", name="m:f"),
        seed=0,
        data=data,
        initial_state=None,
        initial_digest=None,
        make=make,
    )


def one_shot(*percents: int) -> OneShotMethod:
    return OneShotMethod(OneShot(macs_percent=percents), calibration_samples=32, batch=1, timing_threads=1)


def told(make: Callable[[], nn.Module], *methods: Method, batches: tuple[int, ...] = (1, 5)) -> list[str]:
    given = source(make)
    return rehearse(given, GraphCache(given), methods, batches=batches, threads=1)


def test_a_network_that_can_be_made_is_told_of_nothing() -> None:
    assert told(Net, one_shot(50), batches=(1, 16)) == []


def test_a_share_that_cannot_be_reached_is_told() -> None:
    class Wide(Net):
        def __init__(self) -> None:
            super().__init__()
            # Its channels are the network's outputs.
            self.head = nn.Linear(16, 3000)

    (note,) = told(Wide, one_shot(50, 5))
    assert "macsPercent 5 cannot be reached" in note


NOISY = {
    "dropout": lambda: Net(lambda logits: functional.dropout(logits, 0.5, training=True)),
    "noise": lambda: Net(lambda logits: logits + torch.randn(3)),
}


@pytest.mark.parametrize("kind", sorted(NOISY))
def test_noise_in_evaluation_mode_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="each time it is run") as caught:
        told(NOISY[kind])
    assert "dropout" in caught.value.remedy


def test_another_network_each_time_it_is_built_is_refused() -> None:
    def make() -> nn.Module:
        number = next(NUMBERS)
        return Net(lambda logits: logits * number)

    with pytest.raises(UserError, match="each time it is built"):
        told(make)


def test_an_operator_that_onnx_lacks_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"ONNX.*i0e"):
        told(lambda: Net(torch.special.i0e))


def test_a_method_that_can_prune_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="one-shot route can prune") as caught:
        told(Shared, one_shot(50))
    assert caught.value.field == "spec.methods.oneShot"
    assert told(Shared) == []


METRICS = """
def fails(outputs, targets):
    raise ValueError("no such thing")

def vector(outputs, targets):
    return outputs

def nothing(outputs, targets):
    return float("nan")

def below(outputs, targets):
    return -1.0

def fine(outputs, targets):
    return (outputs.argmax(1) == targets).float().mean() + 0.1
"""


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        ("fails", False, "the metric failed .*no such thing"),
        ("vector", False, "the metric failed"),
        ("nothing", True, "the metric gave nan"),
        ("below", True, "the dense model's score is -1"),
        ("below", False, None),
        ("fine", True, None),
    ],
)
def test_a_metric_of_ones_own_is_called_before_anything_is_made(
    name: str, given: bool, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rehearsed_metrics.py").write_text(METRICS)
    monkeypatch.syspath_prepend(tmp_path)
    metric = Metric.model_validate({"factory": f"rehearsed_metrics:{name}", "direction": "Higher"})
    plain = source(Net)
    scored = replace(
        plain, scoring=Scoring(asked=metric, classes=3), initial_state=plain.build().state_dict() if given else None
    )
    try:
        if problem is None:
            assert rehearse(scored, GraphCache(scored), [], batches=(1,), threads=1) == []
        else:
            with pytest.raises(UserError, match=problem) as caught:
                rehearse(scored, GraphCache(scored), [], batches=(1,), threads=1)
            assert caught.value.field == "spec.data.metric.factory"
    finally:
        sys.modules.pop("rehearsed_metrics", None)


class Branching(Net):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.sum() > 0:
            return super().forward(images)
        return super().forward(-images)


def test_a_network_that_looks_at_values_is_refused_with_the_line() -> None:
    with pytest.raises(
        UserError, match=r"values of its samples \(test_rehearsal.py, line \d+: if images.sum"
    ) as caught:
        told(Branching, one_shot(50))
    assert "torch.where" in caught.value.remedy
