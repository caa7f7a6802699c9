"""A report of a stranger's portfolio: names that are markup or formulas, figures at their bounds."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from draft_manifests import DIGEST, draft_latency, draft_manifest, draft_profile, draft_variant

from edgefolio.manifest import DataDigests, Manifest, RejectedCandidate
from edgefolio_pruner.html_report import LoadFigures, RunTimeline, TimelineLoad, TimelinePhase, render_report

FORMULAS = ("$", "$x$", r"$\frac{$", r"$\undefined{x}$", "$" + "{" * 200 + "$", r"$x^{x^{x^{x^{x^{x^{x}}}}}}$")
MARKUP = (
    "<script>alert(1)</script>",
    "</svg><script>alert(1)</script>",
    '" onload="alert(1)',
    "]]><script>alert(1)</script>",
    "<!--",
    "{{ 7 * 7 }}{% for x in y %}",
    "javascript:alert(1)",
    "&lt;script&gt;",
)
NUMBERS: dict[str, Any] = {
    "requests": 1,
    "failed": 0,
    "wrong_version": 0,
    "outside_objective_percent": 0.0,
    "mean_accuracy_percent": 0.0,
    "p50_milliseconds": 1.0,
    "p95_milliseconds": 1.0,
    "switches": 0,
    "switch_milliseconds": None,
    "longest_gap_milliseconds": 0.0,
    "p99_in_switch_windows_milliseconds": None,
    "p99_steady_milliseconds": None,
}


def portfolio(text: str, *, milliseconds: float = 1.0) -> Manifest:
    latency = draft_latency(mean=milliseconds, p95=milliseconds)
    variants = [
        draft_variant("s" * 63, 1, b"x", profiles=(draft_profile(draft_latency()),)),
        draft_variant(
            "dense", 2, b"y", parent=text, method=text, settings={text: text}, profiles=(draft_profile(latency),)
        ),
    ]
    measured = {"validation_accuracy_percent": 50.0, "p50_milliseconds": milliseconds}
    return draft_manifest(
        variants,
        model="digits",
        source=text,
        labels=(text,),
        software={text: text},
        reproduce=text,
        rejected=(RejectedCandidate(name=text, reason=text, **measured),),
        specification={text: [text, {text: text}]},
        data=DataDigests(
            training_uri=text,
            training_sha256=DIGEST,
            validation_sha256=DIGEST,
            test_sha256=DIGEST,
            training_samples=1,
            validation_samples=1,
            test_samples=1,
        ),
    )


def run(text: str) -> RunTimeline:
    load = TimelineLoad(
        name=text,
        description=text,
        seconds=10,
        phases=(TimelinePhase(name=text, start=0, end=5), TimelinePhase(name=text, start=5, end=6)),
        figures=LoadFigures(**NUMBERS),
    )
    return RunTimeline(title=text, description=text, loads=(load,))


class Page(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


PLAIN = Page(render_report(portfolio("plain"), timeline=run("plain")))


@pytest.mark.parametrize("text", [*FORMULAS, *MARKUP])
def test_names_are_neither_markup_nor_formulas(text: str) -> None:
    page = Page(render_report(portfolio(text), timeline=run(text)))
    assert page.tags == PLAIN.tags
    assert {name for name, _ in page.attributes} == {name for name, _ in PLAIN.attributes}
    assert all(value.startswith("#") for name, value in page.attributes if name.endswith(("href", "src")))
    # Once as the portfolio's source, and once in the figure of the run.
    assert page.text.count(text) > 5


@pytest.mark.parametrize("milliseconds", [1e-6, 1e8])
def test_figures_at_their_bounds_are_drawn(milliseconds: float) -> None:
    assert len(render_report(portfolio("a", milliseconds=milliseconds))) < 500_000
