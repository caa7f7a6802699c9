"""The report: one file that needs nothing from outside, whatever names it shows."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from edgefolio.errors import UserError
from edgefolio.repository import Repository
from edgefolio_pruner.html_report import (
    ActiveStep,
    DecisionMark,
    LatencyBin,
    LoadFigures,
    ObjectiveStep,
    RunTimeline,
    TimelineCheck,
    TimelineLoad,
    TimelinePhase,
    render_report,
)

VOID = {"meta", "br", "link", "img", "hr", "use", "path", "rect"}


@pytest.fixture
def manifest(made):
    _, found = Repository.open(str(made.repository)).current_manifest("digits")
    return found


def timeline(variant: str) -> RunTimeline:
    figures = LoadFigures(
        requests=100,
        failed=1,
        wrong_version=0,
        outside_objective_percent=12.0,
        mean_accuracy_percent=97.0,
        p50_milliseconds=1.0,
        p95_milliseconds=2.0,
        switches=1,
        switch_milliseconds=150.0,
        longest_gap_milliseconds=80.0,
        p99_in_switch_windows_milliseconds=None,
        p99_steady_milliseconds=3.0,
    )
    bins = tuple(
        LatencyBin(
            at=second,
            requests=10,
            failed=int(second == 3),
            p50_milliseconds=1,
            p95_milliseconds=2,
            maximum_milliseconds=3,
        )
        for second in range(10)
    )
    silent = LatencyBin(at=9.5, requests=0, p50_milliseconds=None, p95_milliseconds=None, maximum_milliseconds=None)
    mark = DecisionMark(at=4, action="Switch", reason="LatencyViolated", variant=variant, message="p95 2 ms > 1 ms")
    load = TimelineLoad(
        name="adaptive",
        seconds=10,
        phases=(TimelinePhase(name="quiet", start=0, end=5), TimelinePhase(name="hog", start=5, end=10, disturbs=True)),
        latencies=(*bins, silent),
        objective=(ObjectiveStep(at=0, p95_milliseconds=1.5), ObjectiveStep(at=6, p95_milliseconds=None)),
        active=(ActiveStep(at=0, variant=variant), ActiveStep(at=4, variant=None), ActiveStep(at=5, variant="unknown")),
        decisions=(mark,),
        figures=figures,
    )
    bare = TimelineLoad(name="bare", seconds=1, figures=figures)
    return RunTimeline(title="Under load", loads=(load, bare), checks=(TimelineCheck(name="c", passed=False),))


class Page(HTMLParser):
    """Tags that were opened, their ids, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_needs_nothing_from_outside(manifest):
    html = render_report(manifest, timeline=timeline(manifest.variants[0].name))
    page = Page(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert html.count("<svg") == 3
    # Every reference is to a part of the page itself; the rest are names of SVG's namespaces.
    assert all(reference.startswith("#") for reference in re.findall(r'(?:href|src)="([^"]*)"', html))
    assert all(reference.startswith("#") for reference in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html
    assert "<script" not in html
    # The figures' placeholder colours were all replaced by the page's own.
    assert "#0101" not in html
    for variant in manifest.variants:
        assert variant.name in page.text
        assert variant.sha256 in page.text
    for rejected in manifest.rejected:
        assert rejected.reason in page.text
    assert manifest.variants[0].profiles[0].environment.cpu_model in page.text


def test_names_are_shown_not_interpreted(manifest):
    hostile = "<script>alert(1)</script>&\"'"
    changed = manifest.model_copy(update={"source": hostile})
    run = timeline(manifest.variants[0].name)
    run = run.model_copy(update={"title": hostile, "loads": (run.loads[0].model_copy(update={"name": hostile}),)})
    html = render_report(changed, timeline=run)
    assert "<script" not in html
    assert Page(html).text.count(hostile) >= 3


def test_a_timeline_survives_its_file(tmp_path):
    run = timeline("dense")
    run.write(tmp_path / "run.json")
    assert RunTimeline.read(tmp_path / "run.json") == run


@pytest.mark.parametrize("content", [None, "{", "{}", '{"title": "x", "loads": []}'])
def test_what_is_no_timeline_is_the_users_error(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match="--timeline"):
        RunTimeline.read(tmp_path / "run.json")


def test_the_command_writes_the_report_of_what_is_published(made, tmp_path, manifest):
    from edgefolio_pruner.cli.report import report

    timeline(manifest.variants[0].name).write(tmp_path / "run.json")
    out = tmp_path / "report.html"
    assert report(str(made.repository), None, None, tmp_path / "run.json", out) == 0
    assert "Under load" in out.read_text()
    assert report(str(made.repository), "digits", manifest.revision, None, out) == 0
    assert "Under load" not in out.read_text()
    with pytest.raises(UserError, match="--model"):
        report(str(tmp_path), None, None, None, out)
