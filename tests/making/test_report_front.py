"""The report's front, classes and layers, drawn from manifests that nobody made."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from draft_manifests import draft_latency, draft_manifest, draft_profile, draft_variant

from edgefolio.manifest import (
    Accuracy,
    ClassFigures,
    ClassSamples,
    FloatLayer,
    LayerKept,
    Manifest,
    QuantizationRecord,
    Variant,
)
from edgefolio_pruner.html_report import render_report
from edgefolio_pruner.html_report.classes import SHOWN_AT_ONCE, class_rows
from edgefolio_pruner.html_report.layers import layer_strips


class Text(HTMLParser):
    """The text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data


def variant(name: str, rank: int, *, milliseconds: float, correct: list[int], **fields: Any) -> Variant:
    return draft_variant(
        name,
        rank,
        name.encode(),
        test_accuracy=Accuracy.from_counts(correct=sum(correct), samples=100 * len(correct)),
        test_classes=ClassFigures.from_counts(correct=correct, samples=[100] * len(correct)),
        profiles=(draft_profile(draft_latency(mean=milliseconds)),),
        **fields,
    )


def portfolio(labels: tuple[str, ...], *variants: Variant) -> Manifest:
    counts = tuple(100 for _ in labels)
    samples = ClassSamples(training=counts, validation=counts, test=counts)
    return draft_manifest(variants, model="toy", labels=labels, class_samples=samples)


def test_the_class_that_loses_most_comes_first_in_the_table() -> None:
    manifest = portfolio(
        ("cat", "dog", "<b>axolotl</b>"),
        variant("small", 1, milliseconds=1, correct=[95, 96, 60]),
        variant("dense", 2, milliseconds=4, correct=[96, 95, 85]),
    )
    variants, rows = class_rows(manifest)
    assert [one.name for one in variants] == ["dense", "small"]
    assert [row.name for row in rows] == ["<b>axolotl</b>", "cat", "dog"]
    assert [cell.recall for cell in rows[0].cells] == ["85.0", "60.0"]
    assert rows[0].cells[1].loss == 1
    assert rows[2].cells[1].loss == 0
    page = render_report(manifest)
    assert "<b>axolotl" not in page
    text = Text(page).text
    assert "Recall of each class" in text
    assert "<b>axolotl</b>: 60.0 %" in text  # the weakest class, in the table of variants


def test_many_classes_unfold() -> None:
    labels = tuple(f"class {number}" for number in range(SHOWN_AT_ONCE + 7))
    manifest = portfolio(labels, variant("dense", 1, milliseconds=1, correct=[90] * len(labels)))
    text = Text(render_report(manifest)).text
    assert "7 more classes" in text
    assert all(label in text for label in labels)


def test_a_class_without_test_samples_has_no_recall() -> None:
    figures = ClassFigures.from_counts(correct=[9, 0], samples=[10, 0])
    one = draft_variant("dense", 1, b"x", test_classes=figures)
    manifest = draft_manifest([one], model="toy", labels=("a", "b"))
    _, rows = class_rows(manifest)
    assert [row.cells[0].recall for row in rows] == ["90.0", "\N{EN DASH}"]
    assert "Recall of each class" in render_report(manifest)


def test_a_manifest_from_before_has_no_such_table() -> None:
    manifest = draft_manifest([draft_variant("dense", 1, b"x")], model="toy")
    page = render_report(manifest)
    assert "Recall of each class" not in page
    assert "Layers" not in page


def test_gaps_are_marked_with_their_factor_and_what_lies_between() -> None:
    manifest = portfolio(
        ("a", "b"),
        variant("tiny", 1, milliseconds=1, correct=[80, 80]),
        variant("near", 2, milliseconds=8.0, correct=[90, 90]),
        variant("dense", 3, milliseconds=9.0, correct=[92, 92]),
    )
    text = Text(render_report(manifest)).text
    assert "8.0\N{MULTIPLICATION SIGN}, 10.0 points" in text
    assert text.count("1.1\N{MULTIPLICATION SIGN}") == 1  # of the column of speeds


@pytest.mark.parametrize("samples", [1, 13, 48])
@pytest.mark.parametrize("share", [0, 1])
def test_an_accuracy_of_nothing_or_all_is_drawn(samples: int, share: int) -> None:
    accuracy = Accuracy.from_counts(correct=share * samples, samples=samples)
    assert "<svg" in render_report(draft_manifest([draft_variant("d", 1, b"x", test_accuracy=accuracy)], model="toy"))


@pytest.mark.parametrize(("percent", "low", "high"), [(100.0, 77.2, 99.99999999999999), (0.0, 1e-15, 22.8)])
def test_an_interval_that_older_versions_rounded_is_drawn(percent: float, low: float, high: float) -> None:
    accuracy = Accuracy(percent=percent, low_percent=low, high_percent=high, samples=13)
    assert "<svg" in render_report(draft_manifest([draft_variant("d", 1, b"x", test_accuracy=accuracy)], model="toy"))


def test_precision_is_a_shape_and_a_stripe() -> None:
    layers = (LayerKept(name="conv1", before=16, after=8), LayerKept(name="conv2", before=32, after=32))
    record = QuantizationRecord(
        float_parent="float",
        calibration_samples=64,
        accuracy_loss_points=0.1,
        max_accuracy_loss_points=0.3,
        int8_layers=1,
        float_layers=(FloatLayer(name="conv2", residual=0.1),),
    )
    quantization: dict[str, Any] = {"precision": "Int8", "quantization": record}
    int8 = variant("small-int8", 1, milliseconds=1, correct=[90, 90], layers=layers, **quantization)
    dense = variant("dense", 2, milliseconds=4, correct=[95, 95])
    manifest = portfolio(("a", "b"), variant("float", 1, milliseconds=1, correct=[90, 90], layers=layers), dense)
    mixed = manifest.model_copy(update={"variants": (int8, dense)})
    whole, quantized = layer_strips(mixed)
    assert (whole.precision, quantized.precision) == ("float32", "int8")
    assert [(box.share, box.is_int8) for box in whole.boxes] == [(100, False), (100, False)]
    assert [(box.share, box.is_int8) for box in quantized.boxes] == [(50, True), (100, False)]
    assert "int8; float: conv2" in Text(render_report(mixed)).text
    # The legend of shapes is there where there are two.
    assert ">int8</text>" in render_report(mixed).replace("\n", "")
    assert ">int8</text>" not in render_report(manifest).replace("\n", "")
