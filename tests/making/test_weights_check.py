"""Given weights that do not do what trained ones do are found before anything is pruned, whatever the reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgefolio.errors import UserError
from edgefolio.manifest import DataDigests, Preprocessing
from edgefolio.specification import Architecture, Normalization
from edgefolio_pruner.data.bundle import DataBundle, Split
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.stages.checks.weights_check import check_given_weights, depends_on_batch

SHAPE = (3, 6, 6)


class Nearest(nn.Module):
    """Recognizes prototypes in samples that were normalized by ``mean`` and ``std`` over 0..1."""

    def __init__(self, prototypes: np.ndarray, *, mean: float, std: float) -> None:
        super().__init__()
        flat = torch.from_numpy(((prototypes - mean) / std).reshape(len(prototypes), -1).astype(np.float32))
        self.head = nn.Linear(flat.shape[1], len(flat))
        with torch.no_grad():
            # The distance to each prototype, less what is the same for all: right only for this mean and deviation.
            self.head.weight.copy_(2 * flat)
            self.head.bias.copy_(-(flat**2).sum(dim=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


@dataclass(frozen=True, eq=False)
class Source(MakingSource):
    """A source whose network is made here."""

    module: nn.Module | None = None

    def build(self) -> nn.Module:
        assert self.module is not None
        return self.module


def prototypes(classes: int, *, seed: int = 0) -> np.ndarray:
    # Of different brightness, so that another mean or scale takes one class for another.
    generator = np.random.default_rng(seed)
    level = np.linspace(0.2, 0.8, classes).reshape(-1, 1, 1, 1)
    return np.clip(level + generator.uniform(-0.15, 0.15, (classes, *SHAPE)), 0, 1)


def source(
    module: nn.Module,
    raw: np.ndarray,
    *,
    names: tuple[str, ...] = (),
    samples: int = 300,
    mean: float = 0.5,
    std: float = 0.25,
    scale: float = 1 / 255,
    noise: float = 0.02,
    labels: np.ndarray | None = None,
    normalization: Normalization | None = None,
) -> Source:
    """Noisy samples of the prototypes ``raw``, fed as normalized by ``mean`` and ``std``."""
    generator = np.random.default_rng(1)
    wanted = generator.integers(0, len(raw), samples) if labels is None else labels
    images = raw[wanted] + generator.normal(0, noise, (len(wanted), *SHAPE))
    fed = ((images - mean) / std).astype(np.float32)
    third = len(wanted) // 3

    def split(part: slice) -> Split:
        return Split(images=fed[part], labels=wanted[part].astype(np.int64), digest="0" * 64)

    data = DataBundle(
        name="d",
        train=split(slice(third)),
        validation=split(slice(third, 2 * third)),
        test=split(slice(2 * third, None)),
        class_names=names or tuple(f"class{number:02d}" for number in range(len(raw))),
        preprocessing=Preprocessing(scale=scale, mean=(mean,) * 3, std=(std,) * 3),
    )
    assert isinstance(data.digests, DataDigests)
    return Source(
        architecture=Architecture(library="factory", name="m:f"),
        seed=0,
        data=data,
        initial_state=module.state_dict(),
        initial_digest="0" * 64,
        normalization=normalization,
        module=module,
    )


def test_weights_that_do_as_trained_are_taken_with_their_score():
    raw = prototypes(6)
    notes = check_given_weights(source(Nearest(raw, mean=0.5, std=0.25), raw))
    assert len(notes) == 1
    assert "right on 100.0 % of" in notes[0]


def test_training_from_scratch_is_not_judged():
    raw = prototypes(4)
    fresh = source(Nearest(raw[::-1].copy(), mean=0.5, std=0.25), raw)
    object.__setattr__(fresh, "initial_state", None)
    assert check_given_weights(fresh) == []


def test_folders_in_the_order_of_text_and_a_head_in_natural_order():
    names = tuple(sorted(str(number) for number in range(12)))
    raw = prototypes(12)
    by_text = raw[[int(name) for name in names]]
    with pytest.raises(UserError, match=r"a permutation of the classes explains .*data\.classOrder: Natural") as caught:
        check_given_weights(source(Nearest(raw, mean=0.5, std=0.25), by_text, names=names))
    assert caught.value.field == "spec.data.classNames"


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(7)), extra=st.integers(0, 5))
def test_any_permutation_is_found_and_its_remedy_names_the_right_order(order: list[int], extra: int):
    raw = prototypes(7)
    # Output order[c] is trained for class c; outputs beyond know other things.
    head = np.zeros((7 + extra, *SHAPE))
    head[order] = raw
    head[7:] = 3.0
    given = source(Nearest(head, mean=0.5, std=0.25), raw)
    if list(order) == list(range(7)):
        assert check_given_weights(given)
        return
    with pytest.raises(UserError, match="a permutation of the classes explains") as caught:
        check_given_weights(given)
    if not extra:
        right = [""] * 7
        for place, output in enumerate(order):
            right[output] = given.data.class_names[place]
        assert f"[{', '.join(right)}]" in caught.value.remedy


def test_two_classes_that_changed_places_among_many_are_found():
    raw = prototypes(10)
    head = raw[[0, 1, 2, 3, 5, 4, 6, 7, 8, 9]]
    with pytest.raises(UserError, match=r"'class04' is answered by output 5 .'class05'"):
        check_given_weights(source(Nearest(head, mean=0.5, std=0.25), raw, samples=400))


def test_a_head_of_many_classes_on_data_of_few():
    raw = prototypes(40)
    few = raw[[7, 19, 33]]
    with pytest.raises(UserError, match=r"Set data\.classNames to all 40 classes"):
        check_given_weights(source(Nearest(raw, mean=0.5, std=0.25), few))


def test_outputs_that_no_class_has_are_told():
    raw = prototypes(5)
    notes = check_given_weights(source(Nearest(raw, mean=0.5, std=0.25), raw[:3]))
    assert "5 outputs, the data 3 classes" in notes[1]


@pytest.mark.parametrize(
    ("mean", "std", "phrase"),
    [(0.0, 1.0, "from 0 to 1"), (0.5, 0.5, "from -1 to 1"), (0.0, 1 / 255, "from 0 to 255")],
)
def test_another_normalization_is_found_and_named(mean: float, std: float, phrase: str):
    raw = prototypes(8)
    with pytest.raises(UserError, match=phrase) as caught:
        check_given_weights(source(Nearest(raw, mean=mean, std=std), raw, mean=0.45, std=0.12))
    assert caught.value.field == "spec.data.normalization"
    assert f'mean: ["{mean:.6f}", "{mean:.6f}", "{mean:.6f}"]' in caught.value.remedy


def test_the_models_own_normalization_is_tried_first_of_all():
    raw = prototypes(8)
    module = Nearest(raw, mean=0.9, std=0.07)
    module.pretrained_cfg = {"mean": (0.9, 0.9, 0.9), "std": (0.07, 0.07, 0.07)}
    with pytest.raises(UserError, match="the model's own configuration"):
        check_given_weights(source(module, raw, mean=0.45, std=0.12))


def test_weights_that_know_nothing_are_refused():
    raw = prototypes(4)
    generator = torch.Generator().manual_seed(0)
    module = Nearest(raw, mean=0.5, std=0.25)
    with torch.no_grad():
        module.head.weight.normal_(generator=generator)
        module.head.bias.zero_()
    images = np.random.default_rng(3).integers(0, 4, 600)
    # Samples that hold nothing of their labels: whatever the weights, they cannot know.
    nothing = np.repeat(raw[:1], 4, axis=0)
    with pytest.raises(UserError, match="no better than chance") as caught:
        check_given_weights(source(module, nothing, labels=images, noise=0.3))
    assert caught.value.field == "spec.source.weightsURI"


def test_one_answer_for_everything_is_chance_even_where_one_class_is_most_of_the_data():
    raw = prototypes(2)
    module = Nearest(raw, mean=0.5, std=0.25)
    with torch.no_grad():
        module.head.weight.zero_()
        module.head.bias.copy_(torch.tensor([1.0, 0.0]))
    labels = (np.arange(300) % 33 == 0).astype(np.int64)
    with pytest.raises(UserError, match="no better than chance: 97"):
        check_given_weights(source(module, raw, labels=labels))


def test_a_weak_model_that_knows_something_is_taken():
    raw = prototypes(4)
    # Half of the samples are noise: the answers are right far more often than by chance, and far from always.
    generator = np.random.default_rng(5)
    given = source(Nearest(raw, mean=0.5, std=0.25), raw, samples=600)
    for part in (given.data.train, given.data.validation, given.data.test):
        part.labels[:] = np.where(
            generator.random(len(part.labels)) < 0.5, generator.integers(0, 4, len(part.labels)), part.labels
        )
    (note,) = check_given_weights(given)
    assert 50 < float(note.split("right on ")[1].split(" %")[0]) < 80


def test_outputs_that_are_no_numbers_are_refused():
    raw = prototypes(4)
    module = Nearest(raw, mean=0.5, std=0.25)
    with torch.no_grad():
        module.head.bias[1] = float("nan")
    with pytest.raises(UserError, match=r"not finite \(NaN or infinity\) for 256 of 256 samples"):
        check_given_weights(source(module, raw, samples=600))


class Coupled(nn.Module):
    """Its answer depends on the batch, in one of three usual ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.norm = nn.BatchNorm2d(3, track_running_stats=kind != "batch norm")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.kind == "maximum":
            images = images / images.abs().max()
        if self.kind == "mean":
            images = images - images.mean(dim=0)
        return self.norm(images).mean(dim=(2, 3))


@pytest.mark.parametrize("kind", ["maximum", "mean", "batch norm", "none"])
def test_answers_that_depend_on_the_batch_are_seen(kind: str):
    images = np.random.default_rng(0).normal(size=(40, *SHAPE)).astype(np.float32)
    assert depends_on_batch(Coupled(kind), images) == (kind != "none")


class Squeezed(nn.Module):
    """Drops the batch axis of a single sample."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3), keepdim=True).squeeze()


def test_a_network_that_takes_no_single_sample_is_refused():
    images = np.zeros((20, *SHAPE), dtype=np.float32)
    with pytest.raises(UserError, match=r"gives 3 instead of 1x3.*squeeze"):
        depends_on_batch(Squeezed(), images)
