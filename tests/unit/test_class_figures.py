"""Figures by class: what they are for any counts, and what a manifest may hold of them."""

from __future__ import annotations

import json

import pytest
from draft_manifests import draft_manifest, draft_variant
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio.contract.job_report import LARGEST_MESSAGE_BYTES, PublishedReport
from edgefolio.errors import IntegrityError
from edgefolio.manifest import MOST_LISTED_CLASSES, ClassFigures, ClassSamples, Manifest, PublishedManifest

DIGEST = "ab" * 32


def manifest(**fields: object) -> dict:
    drawn = draft_manifest([draft_variant("only", 1, b"x")], model="toy", **fields)
    document: dict = json.loads(drawn.to_bytes())
    return document


def read(document: dict) -> Manifest:
    return Manifest.from_bytes(json.dumps(document).encode(), location="m")


@settings(max_examples=200, deadline=None)
@given(
    counts=st.lists(
        st.integers(0, 50).flatmap(lambda samples: st.tuples(st.integers(0, samples), st.just(samples))),
        min_size=1,
        max_size=40,
    ).filter(lambda counts: any(samples for _, samples in counts))
)
def test_recall_of_every_class_and_their_mean(counts: list[tuple[int, int]]) -> None:
    found = ClassFigures.from_counts(correct=[right for right, _ in counts], samples=[count for _, count in counts])
    for recall, (right, samples) in zip(found.recall_percents, counts, strict=True):
        assert (recall is None) == (samples == 0)
        assert recall is None or recall == pytest.approx(100 * right / samples)
    known = [recall for recall in found.recall_percents if recall is not None]
    assert found.balanced_accuracy_percent == pytest.approx(sum(known) / len(known))
    assert found.lowest_recall_percent == min(known) == found.recall_percents[found.lowest_class]


def test_a_loss_of_few_points_may_be_a_class_that_is_lost() -> None:
    # 970 and 30 samples: top-1 falls by 0.6 points, the rare class by a fifth.
    before = ClassFigures.from_counts(correct=[970, 24], samples=[970, 30])
    after = ClassFigures.from_counts(correct=[970, 18], samples=[970, 30])
    assert (before.lowest_recall_percent, after.lowest_recall_percent) == (80, 60)
    assert (before.lowest_class, after.lowest_class) == (1, 1)
    assert before.balanced_accuracy_percent - after.balanced_accuracy_percent == pytest.approx(10)


def test_of_very_many_classes_only_the_worst_is_named() -> None:
    classes = MOST_LISTED_CLASSES + 1
    found = ClassFigures.from_counts(correct=[*[1] * (classes - 1), 0], samples=[1] * classes)
    assert (found.recall_percents, found.lowest_class, found.lowest_recall_percent) == ((), classes - 1, 0)


def with_figures(classes: int, **changes: object) -> dict:
    document = manifest(labels=tuple(f"class {number}" for number in range(classes)))
    counts = [3] * classes
    document["classSamples"] = {"training": counts, "validation": counts, "test": counts}
    for variant in document["variants"]:
        variant["testClasses"] = {
            "balancedAccuracyPercent": 90.0,
            "lowestRecallPercent": 50.0,
            "lowestClass": 0,
            "recallPercents": [50.0, *[None] * (classes - 1)],
        } | changes
    return document


def test_a_manifest_of_many_classes_and_a_message_as_long_as_before() -> None:
    document = with_figures(MOST_LISTED_CLASSES)
    found = read(document)
    assert found.class_samples is not None
    assert len(found.class_samples.test) == MOST_LISTED_CLASSES
    assert Manifest.from_bytes(found.to_bytes(), location="m") == found
    message = PublishedReport.of(found, digest=DIGEST).to_message()
    assert len(message.encode()) <= LARGEST_MESSAGE_BYTES
    for variant in document["variants"]:
        del variant["testClasses"]
    del document["classSamples"]
    assert PublishedReport.of(read(document), digest=DIGEST).to_message() == message


def test_a_manifest_from_before_keeps_its_bytes() -> None:
    raw = read(manifest()).to_bytes()
    assert b"testClasses" not in raw
    assert b"classSamples" not in raw
    before = PublishedManifest.from_bytes(raw, location="m")
    assert before.manifest.to_bytes() == raw
    assert before.manifest.variants[0].test_classes is None


@pytest.mark.parametrize(
    ("classes", "changes"),
    [
        (MOST_LISTED_CLASSES + 1, {}),
        (3, {"recallPercents": [50.0, 60.0]}),
        (3, {"lowestClass": 3}),
        (3, {"lowestClass": -1}),
        (3, {"recallPercents": [50.0, 101.0, 60.0]}),
        (3, {"recallPercents": [50.0, "x", 60.0]}),
        (3, {"balancedAccuracyPercent": float("nan")}),
        (3, {"unknown": 1}),
    ],
)
def test_figures_that_do_not_belong_to_the_labels_are_refused(classes: int, changes: dict) -> None:
    with pytest.raises(IntegrityError):
        read(with_figures(classes, **changes))


def test_counts_that_do_not_belong_to_the_labels_are_refused() -> None:
    document = with_figures(3)
    document["classSamples"]["test"] = [1, 2]
    with pytest.raises(IntegrityError, match="classSamples"):
        read(document)
    assert ClassSamples(training=(), validation=(), test=()).test == ()
