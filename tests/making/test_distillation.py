"""``distillationEpochs``: nearer to the dense model without labels, resumed to the same bytes, off by default."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from edgefolio.contract.making_key import making_key, making_specification
from edgefolio.errors import UserError
from edgefolio.manifest import Preprocessing
from edgefolio.specification.loading import load_portfolio
from edgefolio_pruner.architectures import cnn
from edgefolio_pruner.data import Split
from edgefolio_pruner.data.stored import NormalisedSamples
from edgefolio_pruner.inputs import load_source
from edgefolio_pruner.methods import CandidateWeights, Workbench, asked_for, make_piece
from edgefolio_pruner.oneshot import distillation, prune_to_targets
from edgefolio_pruner.oneshot.distillation import Distilled, distill
from edgefolio_pruner.progress import no_progress
from edgefolio_pruner.training.answer_forms import distance, form_of
from edgefolio_pruner.work.directory import WorkDirectory


class Killed(Exception):
    pass


def net() -> nn.Module:
    """Convolutions with batch norms that have seen data, and a bias that is zero."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 5),
    )  # fmt: skip
    nn.init.zeros_(module[8].bias)
    module.train()
    for _ in range(5):
        module(images() * 1.5 + 0.2)
    return module.eval()


def images(number: int = 192) -> torch.Tensor:
    return torch.randn(number, 1, 6, 6, generator=torch.Generator().manual_seed(3))


def samples() -> Split:
    # The labels are nonsense: nothing may look at them.
    return Split(images=images().numpy(), labels=np.zeros(192, dtype=np.int64), digest="")


def pruned_net(dense: nn.Module) -> nn.Module:
    (result,) = prune_to_targets(module=dense, calibration=images(), macs_percents=[35], seed=0, threads=1)
    module = copy.deepcopy(dense)
    module.load_state_dict(result.state)
    return module


def run(checkpoint: Path, *, epochs: int = 3) -> Distilled:
    dense = net()
    return distill(
        dense=dense,
        pruned=pruned_net(dense),
        samples=samples(),
        epochs=epochs,
        seed=0,
        threads=1,
        checkpoint=checkpoint,
        checkpoint_seconds=0,
    )


def test_it_comes_nearer_keeps_statistics_and_leaves_removed_channels_at_zero(tmp_path: Path) -> None:
    before = pruned_net(net()).state_dict()
    found = run(tmp_path / "checkpoint")
    assert found.after < found.before
    for name, tensor in found.state.items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(tensor, before[name])
    gone = [name for name, tensor in before.items() if tensor.ndim > 1 and bool((tensor.flatten(1) == 0).all(1).any())]
    assert gone
    for name in gone:
        rows = (before[name].flatten(1) == 0).all(1)
        assert not found.state[name][rows].any()
        bias = name.replace("weight", "bias")
        assert bias not in found.state or not found.state[bias][rows].any()
        assert not torch.equal(found.state[name], before[name])


@pytest.mark.parametrize("after", [1, 4, 8])
def test_a_killed_run_goes_on_to_the_same_bytes(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole")
    store = distillation._Run.store

    def killed(self: distillation._Run, path: Path) -> None:
        store(self, path)
        if self.step == after:
            raise Killed

    monkeypatch.setattr(distillation._Run, "store", killed)
    with pytest.raises(Killed):
        run(tmp_path / "cut")
    assert (tmp_path / "cut").exists()
    monkeypatch.setattr(distillation._Run, "store", store)
    again = run(tmp_path / "cut")
    assert all(torch.equal(tensor, again.state[name]) for name, tensor in whole.state.items())
    assert (whole.before, whole.after) == (again.before, again.after)
    assert not (tmp_path / "cut").exists()


def test_what_does_not_help_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "RATE", 1.0)
    before = pruned_net(net()).state_dict()
    found = run(tmp_path / "checkpoint", epochs=1)
    assert found.after >= found.before
    assert all(torch.equal(tensor, before[name]) for name, tensor in found.state.items())


def test_a_loss_that_is_no_number_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "RATE", float("inf"))
    with pytest.raises(UserError, match="distillationEpochs = '3': distillation diverged"):
        run(tmp_path / "checkpoint")


LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
OTHERS = LOGITS + 0.3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def test_probabilities_are_as_near_as_the_logits_that_they_were_made_of() -> None:
    for task, shares in (("Classification", lambda logits: logits.softmax(1)), ("MultiLabel", torch.sigmoid)):
        forms = [form_of(answers, task) for answers in (LOGITS, shares(LOGITS))]
        assert forms[0].endswith("Logits")
        assert forms[1].endswith("Probabilities")
        as_logits = distance(OTHERS, LOGITS, forms[0])
        assert float(as_logits) > 0.01
        torch.testing.assert_close(
            distance(shares(OTHERS), shares(LOGITS), forms[1]).double(), as_logits, rtol=1e-4, atol=1e-6
        )


def test_forms_are_told_by_the_values() -> None:
    forms = {
        "Logits": [LOGITS, LOGITS.abs() / 9, LOGITS.clamp(0, 1), torch.full((6, 4), 0.3), LOGITS * float("nan")],
        "Probabilities": [LOGITS.softmax(1), LOGITS.softmax(1).bfloat16(), torch.eye(4)],
        "LabelProbabilities": [LOGITS.sigmoid(), LOGITS.sigmoid() / 100],
        "Numbers": [LOGITS[:, :1], LOGITS[:, :, None]],
    }
    # Some of these are told apart by an exact 0.
    forms["Logits"][1][0, 0] = 0
    for form, several in forms.items():
        assert [form_of(answers, "Classification") for answers in several] == [form] * len(several)


def test_what_is_far_depends_on_the_task() -> None:
    moved = LOGITS + 1
    # The same probabilities of classes, other labels, other numbers.
    assert float(distance(moved, LOGITS, form_of(LOGITS, "Classification"))) < 1e-12
    for task in ("MultiLabel", "Regression", "Custom"):
        form = form_of(LOGITS, task)
        assert float(distance(moved, LOGITS, form)) > 0.05
        assert abs(float(distance(LOGITS, LOGITS, form))) < 1e-12


def test_samples_that_are_read_from_a_file_are_learned_as_others(tmp_path: Path) -> None:
    dense = net()
    plain = samples()
    stored = replace(plain, images=NormalisedSamples(np.asarray(plain.images), Preprocessing(mean=(0.0,), std=(1.0,))))
    found = [
        distill(
            dense=dense,
            pruned=pruned_net(dense),
            samples=split,
            epochs=1,
            seed=0,
            threads=1,
            checkpoint=tmp_path / "checkpoint",
        )
        for split in (plain, stored)
    ]
    assert found[0].after < found[0].before
    assert all(torch.equal(tensor, found[1].state[name]) for name, tensor in found[0].state.items())


class TwoAnswers(nn.Module):
    """The same network with its answers in a dict, beside others."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, given: torch.Tensor) -> dict[str, torch.Tensor]:
        answers = self.inner(given)
        return {"numbers": answers, "mean": answers.mean(1)}


def test_vectors_of_numbers_are_learned_as_they_are_and_of_a_dict_the_first(tmp_path: Path) -> None:
    dense, pruned = TwoAnswers(), TwoAnswers()
    pruned.inner.load_state_dict(pruned_net(net()).state_dict())
    with torch.no_grad():
        # A step that no softmax sees.
        pruned.inner[10].bias += 0.5
    found = distill(
        dense=dense,
        pruned=pruned,
        samples=samples(),
        epochs=40,
        seed=0,
        threads=1,
        checkpoint=tmp_path / "checkpoint",
        task="Regression",
    )
    assert found.after < found.before / 2
    pruned.load_state_dict(found.state)
    with torch.no_grad():
        off = (pruned(images())["numbers"] - dense(images())["numbers"]).mean()
    assert abs(float(off)) < 0.25


def ask(document: dict[str, Any], epochs: int | None, folder: Path) -> None:
    torch.manual_seed(0)
    safetensors.torch.save_file(cnn(in_channels=1, width=16).state_dict(), folder / "weights.safetensors")
    document["spec"]["source"]["architecture"]["options"]["width"] = 16
    document["spec"]["source"]["weightsURI"] = str(folder / "weights.safetensors")
    document["spec"]["methods"] = {"oneShot": {"macsPercent": [60]}}
    if epochs is not None:
        document["spec"]["methods"]["oneShot"]["distillationEpochs"] = epochs


def test_zero_changes_neither_key_nor_manifest(portfolio_file, tmp_path: Path) -> None:
    without, zero, three = (
        load_portfolio(portfolio_file(lambda document, epochs=epochs: ask(document, epochs, tmp_path))).spec
        for epochs in (None, 0, 3)
    )
    assert making_key(without) == making_key(zero) != making_key(three)
    assert making_specification(without) == making_specification(zero)
    assert "distillationEpochs" not in making_specification(zero)["methods"]["oneShot"]
    assert making_specification(three)["methods"]["oneShot"]["distillationEpochs"] == 3


def test_a_piece_of_a_pruning_run_is_distilled_and_kept(portfolio_file, tmp_path: Path) -> None:
    def pieces(epochs: int | None) -> tuple[CandidateWeights, ...]:
        portfolio = load_portfolio(portfolio_file(lambda document: ask(document, epochs, tmp_path)))
        bench = Workbench(
            source=load_source(portfolio, progress=no_progress),
            work=WorkDirectory(tmp_path / "work"),
            threads=1,
            progress=no_progress,
        )
        return make_piece(asked_for(portfolio), "oneshot-60", bench)

    (plain,), (learned,) = pieces(None), pieces(1)
    assert (learned.name, learned.parent, learned.settings["distillationEpochs"]) == ("oneshot-60", "dense", 1)
    assert learned.settings["divergence"][1] <= learned.settings["divergence"][0]
    assert {name: learned.settings[name] for name in plain.settings} == dict(plain.settings)
    content = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (plain.path, learned.path)}
    assert (pieces(1)[0].digest, pieces(None)[0].digest) == (learned.digest, plain.digest)
    assert content == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in content}
