"""Metrics of every task give what scikit-learn gives, whatever the batches are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from edgefolio.errors import UserError
from edgefolio.specification.metric import METRICS, Metric, Task
from edgefolio_pruner.scoring.score import Score, percent_of_dense
from edgefolio_pruner.scoring.scoring import Scoring, Tally

RANDOM = np.random.default_rng(0)
SAMPLES, CLASSES = 230, 6
LOGITS = RANDOM.normal(size=(SAMPLES, CLASSES)).astype(np.float32)
# About half of the answers are right; class 5 does not occur.
LABELS = np.where(RANDOM.random(SAMPLES) < 0.5, LOGITS.argmax(axis=1), RANDOM.integers(0, 5, SAMPLES)) % 5
YES = (LOGITS + RANDOM.normal(size=LOGITS.shape) > 0).astype(np.uint8)
NUMBERS = (LOGITS + RANDOM.normal(size=LOGITS.shape) / 3).astype(np.float32)
MAPS = RANDOM.normal(size=(SAMPLES, CLASSES, 4, 5)).astype(np.float32)
MASKS = np.where(RANDOM.random((SAMPLES, 4, 5)) < 0.6, MAPS.argmax(axis=1), RANDOM.integers(-1, 6, (SAMPLES, 4, 5)))


def tallied(scoring: Scoring, outputs: Any, targets: Any, *, dense: Any = None, batch: int = 64) -> Score:
    tally = Tally(scoring, dense=dense)
    for start in range(0, len(targets), batch):
        tally.add((outputs[start : start + batch],), targets[start : start + batch])
    return tally.result().score


def scoring_for(task: Task, name: Any, **settings: Any) -> Scoring:
    return Scoring(task=task, asked=Metric(name=name, **settings), classes=CLASSES)


def iou() -> float:
    answers, counted = MAPS.argmax(axis=1), MASKS >= 0
    return float(reference.jaccard_score(MASKS[counted], answers[counted], average="macro"))


CASES: dict[str, tuple[Task, Any, Any, Any, Callable[[], float]]] = {
    "Top1": ("Classification", {"name": "Top1"}, LOGITS, LABELS, lambda: (LOGITS.argmax(axis=1) == LABELS).mean()),
    "TopK": (
        "Classification",
        {"name": "TopK", "k": 3},
        LOGITS,
        LABELS,
        lambda: reference.top_k_accuracy_score(LABELS, LOGITS, k=3, labels=range(CLASSES)),
    ),
    "balanced": (
        "Classification",
        {"name": "BalancedAccuracy"},
        LOGITS,
        LABELS,
        lambda: reference.recall_score(LABELS, LOGITS.argmax(axis=1), labels=range(5), average="macro"),
    ),
    "F1 of classes": (
        "Classification",
        {"name": "F1"},
        LOGITS,
        LABELS,
        lambda: reference.f1_score(LABELS, LOGITS.argmax(axis=1), average="macro"),
    ),
    "F1 of labels": (
        "MultiLabel",
        {"name": "F1"},
        LOGITS,
        YES,
        lambda: reference.f1_score(YES, LOGITS > 0, average="macro"),
    ),
    "MAE": (
        "Regression",
        {"name": "MAE"},
        LOGITS,
        NUMBERS,
        lambda: reference.mean_absolute_error(NUMBERS, LOGITS),
    ),
    "RMSE": (
        "Regression",
        {"name": "RMSE"},
        LOGITS,
        NUMBERS,
        lambda: np.sqrt(reference.mean_squared_error(NUMBERS.ravel(), LOGITS.ravel())),
    ),
    "mean IoU": ("Segmentation", {"name": "MeanIoU"}, MAPS, MASKS, iou),
    "pixels": (
        "Segmentation",
        {"name": "Top1"},
        MAPS,
        MASKS,
        lambda: (MAPS.argmax(axis=1) == MASKS)[MASKS >= 0].mean(),
    ),
}


@pytest.mark.parametrize("batch", [1, 64, 1000])
@pytest.mark.parametrize("case", sorted(CASES))
def test_values_are_those_of_the_field(case: str, batch: int) -> None:
    task, asked, outputs, targets, wanted = CASES[case]
    scoring = Scoring(task=task, asked=Metric(**asked), classes=CLASSES)
    found = tallied(scoring, outputs, targets, batch=batch)
    assert found.value == pytest.approx(float(wanted()), rel=1e-6)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("case", ["MAE", "F1 of classes", "mean IoU"])
def test_intervals_hold_about_as_often_as_they_say(case: str) -> None:
    # Halves of the samples: the interval of one covers the value of all in most of the cases.
    task, asked, outputs, targets, _ = CASES[case]
    scoring = Scoring(task=task, asked=Metric(**asked), classes=CLASSES)
    whole = tallied(scoring, outputs, targets).value
    covered = 0
    for seed in range(40):
        chosen = np.random.default_rng(seed).permutation(SAMPLES)[: SAMPLES // 2]
        part = tallied(scoring, outputs[chosen], targets[chosen])
        covered += part.low <= whole <= part.high
    assert covered >= 36


def test_answers_that_are_no_numbers_are_wrong() -> None:
    broken = LOGITS.copy()
    broken[::2] = np.nan
    for task, asked, targets in (
        ("Classification", {"name": "Top1"}, LABELS),
        ("Classification", {"name": "TopK", "k": 2}, LABELS),
        ("Classification", {"name": "F1"}, LABELS),
        ("MultiLabel", {"name": "F1"}, YES),
    ):
        scoring = Scoring(task=task, asked=Metric(**asked), classes=CLASSES)  # type: ignore[arg-type]
        assert tallied(scoring, broken, targets).value < tallied(scoring, LOGITS, targets).value
    assert tallied(scoring_for("Regression", "MAE"), broken, NUMBERS).value > 1e29


def test_agreement_with_itself_is_whole_and_with_noise_is_less() -> None:
    noisy = LOGITS + RANDOM.normal(size=LOGITS.shape).astype(np.float32)
    other_maps = MAPS + RANDOM.normal(size=MAPS.shape).astype(np.float32)
    for task, dense, other in (
        ("Classification", LOGITS, noisy),
        ("MultiLabel", LOGITS, noisy),
        ("Regression", LOGITS, noisy),
        ("Segmentation", MAPS, other_maps),
        ("Custom", MAPS, other_maps),
    ):
        scoring = scoring_for(task, "Agreement")  # type: ignore[arg-type]
        assert tallied(scoring, dense, dense, dense=dense).value == 1.0
        assert tallied(scoring, other, dense, dense=dense).value < 0.9


def test_one_map_and_one_logit_tell_two_classes_apart() -> None:
    masks = (MAPS[:, 0] > 0).astype(np.int16)
    scoring = Scoring(task="Segmentation", classes=2)
    assert tallied(scoring, MAPS[:, :1], masks).value == 1.0
    # Probabilities say yes from a half on.
    probabilities = 1 / (1 + np.exp(-MAPS[:, :1]))
    assert tallied(Scoring(task="Segmentation", classes=2, threshold=0.5), probabilities, masks).value == 1.0


def own_score(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(1) == targets).float().mean()


def own_error(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    assert len(outputs) == SAMPLES, "only all at once"
    return float((outputs - targets).abs().max())


def no_number(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return float("nan")


def not_a_score(outputs: torch.Tensor, targets: torch.Tensor) -> str:
    return "good"


def factory(name: str, direction: Any = "Higher") -> Scoring:
    return Scoring(task="Custom", asked=Metric(factory=f"{__name__}:{name}", direction=direction))


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    # Collected by path: pytest does not make the module importable by its name.
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


def test_a_metric_of_ones_own_is_given_everything() -> None:
    found = tallied(factory("own_score"), LOGITS, LABELS)
    assert found.value == pytest.approx((LOGITS.argmax(axis=1) == LABELS).mean())
    assert found.low < found.value < found.high
    # Where parts cannot be scored there is no interval.
    alone = tallied(factory("own_error", "Lower"), LOGITS, NUMBERS)
    assert alone.low == alone.value == alone.high == pytest.approx(np.abs(LOGITS - NUMBERS).max())


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_number", "the metric gave nan for 230 samples"),
        ("not_a_score", "the metric failed for 230 samples"),
        ("absent", "it cannot be imported"),
        ("SAMPLES", "it is not callable"),
    ],
)
def test_a_metric_of_ones_own_that_is_wrong(name: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        tallied(factory(name), LOGITS, LABELS)
    assert caught.value.field == "spec.data.metric.factory"
    assert caught.value.value == f"{__name__}:{name}"
    assert caught.value.remedy


def test_percent_of_the_dense_model() -> None:
    def percent(value: float, dense: float, *, higher: bool) -> float:
        return percent_of_dense(
            Score(value=value, low=value, high=value),
            Score(value=dense, low=dense, high=dense),
            higher_is_better=higher,
            samples=1,
        ).percent

    assert percent(0.5, 0.4, higher=False) == pytest.approx(80)
    assert percent(0.3, 0.4, higher=False) == 100
    assert percent(0.0, 0.0, higher=False) == 100
    assert percent(1.0, 0.0, higher=False) == 0
    assert percent(0.3, 0.4, higher=True) == pytest.approx(75)
    assert percent(-1.0, 0.4, higher=True) == 0


def test_every_metric_of_every_task_can_be_measured() -> None:
    targets: dict[str, Any] = {
        "Classification": (LOGITS, LABELS),
        "MultiLabel": (LOGITS, YES),
        "Regression": (LOGITS, NUMBERS),
        "Segmentation": (MAPS, MASKS),
        "Custom": (MAPS, MASKS),
    }
    for task, names in METRICS.items():
        for name in names:
            outputs, wanted = targets[task]
            dense = outputs if name == "Agreement" else None
            found = tallied(scoring_for(task, name), outputs, outputs if dense is not None else wanted, dense=dense)  # type: ignore[arg-type]
            assert np.isfinite([found.value, found.low, found.high]).all()
