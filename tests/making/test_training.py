"""Sparse training: masks that hold, rewinding that rewinds, levels that drop what they should."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio.specification import DataSpecification, SparseTraining
from edgefolio_pruner.data import DataBundle, load_data
from edgefolio_pruner.model_source.loading import build_architecture, parse_architecture
from edgefolio_pruner.training import TrainedLevel, evaluate, state_digest, train_levels
from edgefolio_pruner.training.batches import Batches, augment
from edgefolio_pruner.training.checkpoint import read_tensors, write_tensors
from edgefolio_pruner.training.determinism import reproducible
from edgefolio_pruner.training.masks import full_masks, prunable_parameters, prune_by_magnitude, target_of
from edgefolio_pruner.training.schedule import learning_rate
from edgefolio_pruner.training.trainer import LevelSchedule, LevelTrainer, Position

CNN = parse_architecture("edgefolio:cnn", ["in_channels=1", "width=8"])
build = partial(build_architecture, CNN, seed=0)


@pytest.fixture(scope="module")
def digits() -> DataBundle:
    return load_data(DataSpecification(training_uri="builtin:digits"), seed=0)


def train(
    digits: DataBundle, folder: Path, *, seed: int = 0, initial: Any = None, **settings: Any
) -> list[TrainedLevel]:
    defaults = {"dense_epochs": 2, "levels": 2, "batch_size": 64, "sparsity": "Magnitude"}
    return list(
        train_levels(
            specification=SparseTraining(**{**defaults, **settings}),
            build=build,
            initial_state=initial,
            data=digits,
            seed=seed,
            threads=1,
            work_directory=folder,
        )
    )


def test_levels_form_a_chain_of_nested_masks(digits: DataBundle, tmp_path: Path) -> None:
    dense, first, second = train(digits, tmp_path, dense_epochs=4)
    assert [level.name for level in (dense, first, second)] == ["dense", "sparse-1", "sparse-2"]
    assert (dense.parent, first.parent, second.parent) == (None, "dense", "sparse-1")
    assert dense.kept_weights == dense.prunable_weights == 8 * 9 + 16 * 8 * 9 + 32 * 16 * 9 + 320
    for before, level in ((dense, first), (first, second)):
        assert level.kept_weights == target_of(before.kept_weights, 40)
        state = level.state()
        assert state_digest(state) == level.state_digest
        zeros = sum(int((state[entry.parameter] == 0).sum()) for entry in level.masks)
        assert zeros == level.prunable_weights - level.kept_weights
        for name, value in before.state().items():
            if name in {entry.parameter for entry in level.masks}:
                assert not bool(((value == 0) & (state[name] != 0)).any())
    module = build()
    module.load_state_dict(second.state())
    assert evaluate(module, digits.validation) == second.validation_correct
    assert second.validation_accuracy_percent > 80


class WithSoftmax(nn.Module):
    """A network that answers with probabilities, always or in evaluation alone."""

    def __init__(self, *, while_trained: bool) -> None:
        super().__init__()
        self.inner, self.while_trained = build(), while_trained

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(images)
        return logits.softmax(1) if self.while_trained or not self.training else logits


@pytest.mark.parametrize("while_trained", [True, False])
def test_probabilities_are_learned_as_logits_are(digits: DataBundle, tmp_path: Path, *, while_trained: bool) -> None:
    settings = SparseTraining(dense_epochs=1, levels=1, epochs_per_level=1, batch_size=64)
    common = {"specification": settings, "initial_state": None, "data": digits, "seed": 0, "threads": 1}
    plain = train_levels(build=build, work_directory=tmp_path / "plain", **common)
    with_softmax = train_levels(
        build=lambda: WithSoftmax(while_trained=while_trained), work_directory=tmp_path / "softmax", **common
    )
    for one, other in zip(plain, with_softmax, strict=True):
        state = other.state()
        for name, tensor in one.state().items():
            torch.testing.assert_close(state[f"inner.{name}"], tensor, rtol=1e-2, atol=1e-3)
        assert abs(one.validation_correct - other.validation_correct) <= 1


@pytest.mark.parametrize(("optimizer", "rate"), [("SGD", "0.1"), ("AdamW", "0.01")])
def test_masks_hold_for_weights_and_optimizer_state(digits: DataBundle, optimizer: Any, rate: str) -> None:
    module = build()
    masks = prune_by_magnitude(full_masks(module), prunable_parameters(module), target=2000)
    specification = SparseTraining(optimizer=optimizer, learning_rate=rate, weight_decay="0.01")
    trainer = LevelTrainer(module, masks, specification, "float32")
    batches = Batches(digits.train, batch_size=64, augmentation="Flip", seed=0)
    plan = LevelSchedule(level=1, first_step=0, steps=20, first_epoch=0, peak_rate=float(rate))
    trainer.run(
        batches,
        plan,
        seed=0,
        start=Position(step=0, seconds=0.0, loss=0.0),
        until=20,
        on_pause=lambda _: None,
        on_report=lambda _: None,
        checkpoint_seconds=1e9,
    )
    tensors = trainer.tensors()
    slots = ("momentum_buffer",) if optimizer == "SGD" else ("exp_avg", "exp_avg_sq")
    for name, mask in masks.items():
        for kind in ("model", *(f"optimizer/{slot}" for slot in slots)):
            value = tensors[f"{kind}/{name}"]
            assert int((value[~mask] != 0).sum()) == 0, (kind, name)
            assert int((value[mask] != 0).sum()) > 0.5 * int(mask.sum()), (kind, name)


def test_magnitude_pruning_is_global_and_takes_the_smallest() -> None:
    module = build()
    prunable = prunable_parameters(module)
    masks = prune_by_magnitude(full_masks(module), prunable, target=1000)
    kept = torch.cat([prunable[name].detach().abs()[mask] for name, mask in masks.items()])
    dropped = torch.cat([prunable[name].detach().abs()[~mask] for name, mask in masks.items()])
    assert kept.numel() == 1000
    assert float(kept.min()) >= float(dropped.max())
    shares = {name: float(mask.float().mean()) for name, mask in masks.items()}
    assert max(shares.values()) > 2 * min(shares.values())
    with torch.no_grad():
        for value in prunable.values():
            value.fill_(1.0)
    assert sum(int(mask.sum()) for mask in prune_by_magnitude(masks, prunable, target=77).values()) == 77


def test_rewinding_goes_back_to_weights_statistics_schedule_and_order(digits: DataBundle, tmp_path: Path) -> None:
    levels = train(digits, tmp_path, levels=1, dense_epochs=2, epochs_per_level=2, rewind_step=9, prune_percent=1)
    rewound = read_tensors(tmp_path / "rewind.safetensors")
    assert rewound is not None
    assert state_digest(rewound.tensors) != levels[0].state_digest
    again = train(digits, tmp_path / "same", levels=0, dense_epochs=2)
    assert again[0].state_digest == levels[0].state_digest
    # By hand: the masks of the trained weights on the rewound ones, and the dense run's own steps from there on.
    trained = build()
    trained.load_state_dict(levels[0].state())
    masks = prune_by_magnitude(full_masks(trained), prunable_parameters(trained), target=levels[1].kept_weights)
    expected = build()
    expected.load_state_dict(rewound.tensors)
    precision = json.loads((tmp_path / "run.json").read_text())["precision"]
    trainer = LevelTrainer(expected, masks, SparseTraining(batch_size=64), precision)
    batches = Batches(digits.train, batch_size=64, augmentation="Flip", seed=0)
    plan = LevelSchedule(level=1, first_step=9, steps=2 * batches.per_epoch, first_epoch=0, peak_rate=0.1)
    with reproducible(threads=1):
        trainer.run(
            batches,
            plan,
            seed=0,
            start=Position(step=9, seconds=0.0, loss=0.0),
            until=plan.steps,
            on_pause=lambda _: None,
            on_report=lambda _: None,
            checkpoint_seconds=1e9,
        )
    assert state_digest(expected.state_dict()) == levels[1].state_digest
    without = train(digits, tmp_path / "without", levels=1, dense_epochs=2, epochs_per_level=2, prune_percent=1)
    assert without[1].state_digest != levels[1].state_digest


def test_given_weights_are_the_dense_level(digits: DataBundle, tmp_path: Path) -> None:
    dense = train(digits, tmp_path / "first", levels=0)[0]
    levels = train(digits, tmp_path / "second", levels=1, initial=dense.state())
    assert levels[0].state_digest == dense.state_digest
    assert levels[0].validation_correct == dense.validation_correct
    rewinding = train(
        digits, tmp_path / "third", levels=1, initial=dense.state(), rewind_step=3, epochs_per_level=1, prune_percent=95
    )
    assert rewinding[0].state_digest == dense.state_digest
    assert rewinding[1].kept_weights < 0.06 * rewinding[1].prunable_weights


def test_equal_runs_are_equal_and_others_are_not(digits: DataBundle, tmp_path: Path) -> None:
    one = train(digits, tmp_path / "one")
    calls: list[str] = []
    resumed = train_levels(
        specification=SparseTraining(dense_epochs=2, levels=2, batch_size=64, sparsity="Magnitude"),
        build=build,
        initial_state=None,
        data=digits,
        seed=0,
        threads=1,
        work_directory=tmp_path / "one",
        progress=lambda *, stage, fraction, message: calls.append(message),
    )
    assert list(resumed) == one
    assert not calls
    two = train(digits, tmp_path / "two")
    assert [level.state_digest for level in two] == [level.state_digest for level in one]
    # Other settings in the same folder begin anew.
    three = train(digits, tmp_path / "two", seed=1)
    assert all(level.state_digest not in {other.state_digest for other in one} for level in three)
    # A damaged level is made again.
    one[1].state_path.write_bytes(one[1].state_path.read_bytes()[:-4])
    mended = train(digits, tmp_path / "one")
    assert [level.state_digest for level in mended] == [level.state_digest for level in one]


def test_order_and_augmentation_depend_on_seed_epoch_and_sample_only(digits: DataBundle) -> None:
    def batches(seed: int = 0) -> Batches:
        return Batches(digits.train, batch_size=50, augmentation="FlipCrop", seed=seed)

    forward = batches()
    seen = {(epoch, place): forward.batch(epoch=epoch, position=place) for epoch in (0, 1) for place in range(3)}
    for (epoch, place), (images, labels) in reversed(list(seen.items())):
        other = batches().batch(epoch=epoch, position=place)
        assert torch.equal(images, other[0])
        assert torch.equal(labels, other[1])
    assert not torch.equal(seen[0, 0][1], seen[1, 0][1])
    assert not torch.equal(seen[0, 0][1], batches(seed=1).batch(epoch=0, position=0)[1])
    epoch = np.concatenate([forward.indices(epoch=4, position=place) for place in range(forward.per_epoch)])
    assert len(set(epoch.tolist())) == len(epoch) == 50 * (digits.train.samples // 50)
    # One sample is augmented alike wherever in an epoch's batches it stands.
    small = Batches(digits.train, batch_size=7, augmentation="FlipCrop", seed=0)
    by_sample = dict(
        zip(forward.indices(epoch=2, position=0).tolist(), forward.batch(epoch=2, position=0)[0], strict=True)
    )
    for place in range(small.per_epoch):
        for sample, image in zip(
            small.indices(epoch=2, position=place).tolist(), small.batch(epoch=2, position=place)[0], strict=True
        ):
            if sample in by_sample:
                assert torch.equal(image, by_sample.pop(sample))
    assert not by_sample


def test_augmentation_mirrors_and_shifts() -> None:
    image = torch.arange(1.0, 65.0).reshape(1, 1, 8, 8)
    bits = np.array([0, 1, 2**8 * 2, 2**32 * 2], dtype=np.uint64)
    plain, mirrored, _, _ = augment(image.expand(4, -1, -1, -1), bits, crop=False)
    assert torch.equal(plain, image[0])
    assert torch.equal(mirrored, image[0].flip(-1))
    centre = np.array([2**8 + 2**32], dtype=np.uint64)
    assert torch.equal(augment(image, centre, crop=True)[0], image[0])
    down, right = np.array([2**32], dtype=np.uint64), np.array([2**8], dtype=np.uint64)
    assert torch.equal(augment(image, down, crop=True)[0, :, 1:], image[0, :, :-1])
    assert torch.equal(augment(image, right, crop=True)[0, :, :, 1:], image[0, :, :, :-1])
    assert not augment(image, down, crop=True)[0, :, 0].any()


def test_schedules() -> None:
    rates = {name: [learning_rate(name, step=step, steps=100, peak=1.0) for step in range(100)] for name in SCHEDULES}
    assert all(0 < rate <= 1.0 for values in rates.values() for rate in values)
    assert set(rates["Constant"]) == {1.0}
    assert rates["Step"][0] == 1.0
    assert rates["Step"][60] == pytest.approx(0.1)
    assert rates["Step"][90] == pytest.approx(0.01)
    assert rates["Cosine"] == sorted(rates["Cosine"], reverse=True)
    assert rates["OneCycle"].index(max(rates["OneCycle"])) in range(20, 30)
    assert rates["OneCycle"][0] < 0.2
    assert rates["OneCycle"][-1] < 0.01


SCHEDULES: tuple[Any, ...] = ("OneCycle", "Cosine", "Step", "Constant")


def test_settings_return_after_reproducible_work() -> None:
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.random.get_rng_state())

    def work() -> None:
        with reproducible(threads=3):
            assert torch.get_num_threads() == 3
            torch.randn(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert torch.get_num_threads() == before[0]
    assert torch.are_deterministic_algorithms_enabled() == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])


def test_digest_sees_names_types_shapes_and_bytes() -> None:
    state = {"a": torch.zeros(2, 3), "b": torch.tensor(1.0)}
    digests = {
        state_digest(other)
        for other in (
            state,
            {"a": state["a"], "c": state["b"]},
            {"a": torch.zeros(3, 2), "b": state["b"]},
            {"a": torch.zeros(2, 3, dtype=torch.int32), "b": state["b"]},
            {"a": -state["a"], "b": state["b"]},
        )
    }
    assert len(digests) == 5
    assert state_digest(dict(reversed(state.items()))) == state_digest(state)
    channels_last = {"w": torch.randn(2, 3, 4, 4)}
    moved = {"w": channels_last["w"].to(memory_format=torch.channels_last)}
    assert state_digest(moved) == state_digest(channels_last)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"momentum": "1"}, "momentum"),
        ({"rewind_step": 10**6}, "rewindStep"),
        ({"learning_rate": "100000", "schedule": "Constant"}, "learningRate"),
    ],
)
def test_settings_that_cannot_work(digits: DataBundle, tmp_path: Path, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(UserError) as caught:
        train(digits, tmp_path, **settings)
    assert caught.value.field == f"spec.methods.sparseTraining.{field}"


@pytest.mark.parametrize(
    ("make", "field", "problem"),
    [
        (lambda: build_architecture(parse_architecture("edgefolio:cnn")), "architecture", "shape 1x8x8"),
        (lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)), "architecture", "shape 1x8x8"),
        (lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 9)), "options", "9 logits.*10 classes"),
        (lambda: torch.nn.Conv2d(1, 10, 3), "architecture", "one vector of logits"),
        (lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LayerNorm(64)), "architecture", "no prunable layer"),
    ],
)
def test_models_that_do_not_fit(digits: DataBundle, tmp_path: Path, make: Any, field: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        train_levels(
            specification=SparseTraining(),
            build=make,
            initial_state=None,
            data=digits,
            seed=0,
            threads=1,
            work_directory=tmp_path / "work",
        )
    assert caught.value.field.endswith(field)
    assert not (tmp_path / "work").exists()


def test_given_weights_that_do_not_fit(digits: DataBundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        train(digits, tmp_path, initial={"0.weight": torch.zeros(8, 1, 3, 3)})


def test_a_work_directory_that_cannot_be_written(digits: DataBundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="--work-dir"):
        train(digits, tmp_path / "file" / "work")


def test_damaged_checkpoints_are_as_good_as_none(digits: DataBundle, tmp_path: Path) -> None:
    expected = train(digits, tmp_path / "whole", levels=0)
    train(digits, tmp_path / "work", levels=0)
    for path in (tmp_path / "work" / "levels").iterdir():
        path.unlink()
    for content in (b"", b"\x00" * 100, expected[0].state_path.read_bytes()[:200]):
        (tmp_path / "work" / "checkpoint.safetensors").write_bytes(content)
        assert read_tensors(tmp_path / "work" / "checkpoint.safetensors") is None
    assert train(digits, tmp_path / "work", levels=0)[0].state_digest == expected[0].state_digest
    write_tensors(tmp_path / "pair.safetensors", {"a": torch.ones(2)}, {"step": 3})
    stored = read_tensors(tmp_path / "pair.safetensors")
    assert stored is not None
    assert stored.record == {"step": 3}
