"""A portfolio file that changes is seen before it is read again, and one that is gone or broken changes nothing."""

from __future__ import annotations

from pathlib import Path

from edgefolio_edge.agent.portfolio_file import PortfolioFile
from edgefolio_edge.agent.records.event_log import Reporter

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion-mnist.yaml"


def test_a_change_is_seen_once(tmp_path: Path) -> None:
    path = tmp_path / "portfolio.yaml"
    text = EXAMPLE.read_text()
    path.write_text(text)
    portfolio, reporter = PortfolioFile(path), Reporter(as_json=True)
    assert not portfolio.is_changed
    asked = portfolio.objectives.latency_p95_milliseconds
    assert asked is not None
    path.with_suffix(".new").write_text(text.replace(f"latencyP95Milliseconds: {asked:g}", "latencyP95Milliseconds: 7"))
    path.with_suffix(".new").replace(path)
    assert portfolio.is_changed
    assert portfolio.objectives.latency_p95_milliseconds == asked, "until it is read"
    assert portfolio.reread(reporter)
    assert portfolio.objectives.latency_p95_milliseconds == 7
    assert not portfolio.is_changed


def test_one_that_is_gone_or_broken_is_no_reason_to_look_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "portfolio.yaml"
    path.write_text(EXAMPLE.read_text())
    portfolio, reporter = PortfolioFile(path), Reporter(as_json=True)
    path.unlink()
    assert not portfolio.is_changed
    path.write_text("no: portfolio\n")
    assert portfolio.is_changed
    assert not portfolio.reread(reporter)
    assert not portfolio.is_changed
