"""Names and messages of strangers that rewrite the terminal of whoever reads them, or forge a line of a log."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from drafts import draft_of
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from edgefolio.commands.main import main
from edgefolio.commands.terminal import Terminal, say
from edgefolio.contract.job_report import FailureReport, ProgressLine
from edgefolio.contract.log_format import JsonLines, log_line
from edgefolio.errors import IntegrityError, UserError
from edgefolio.repository import Publication
from edgefolio.shown_text import printable, shortened
from edgefolio_edge.agent.records.event_log import Reporter

#: Clears the screen, sets the title, colours, goes back, turns the direction, begins lines; C1; half of a pair.
HOSTILE = (
    "x\x1b[2J\x1b]0;owned\x07\x1b[31m\r\b\x0b\x0c\x7f\x9b1A\u202e\u2066\u200f\u2028\u0085\ud800\n"
    "sound   digits, revision 1"
)
TEXTS = st.text(alphabet=st.characters(), max_size=60) | st.text(alphabet=sorted(set(HOSTILE)), max_size=30)


def assert_harmless(output: str, *, lines: int | None = None) -> None:
    assert output.endswith("\n")
    for line in output[:-1].split("\n"):
        assert line.isprintable(), line
        assert not line.startswith("sound   digits"), line
    assert lines is None or output.count("\n") == lines
    output.encode("utf-8")


def on_terminal(*parts: Any) -> str:
    file = io.StringIO()
    Terminal(file=file, force_terminal=False, width=400).print(*parts)
    return file.getvalue()


@given(TEXTS)
def test_text_is_harmless_in_each_form(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    assert len(shortened(text * 50, 100)) <= 100
    assert_harmless(on_terminal(Text(text)), lines=1)
    assert_harmless(on_terminal(Text("sure ", style="bold") + Text(text)))
    table = Table(title=Text(text))
    table.add_column(Text(text))
    table.add_row(Text(text))
    assert_harmless(on_terminal(table))
    tree = Tree(Text(text))
    tree.add(Text(text)).add(table)
    assert_harmless(on_terminal(tree))
    for line in (log_line({"a": text, text: [text]}), FailureReport.of(RuntimeError(text)).to_message()):
        assert_harmless(line + "\n", lines=1)
    assert json.loads(log_line({"a": text}))["a"] == text
    for error in (UserError(text, field=text, value=text, remedy=text), IntegrityError(text, location=text)):
        assert str(error).isprintable()


def test_readable_letters_stay(capsys: pytest.CaptureFixture[str]) -> None:
    say("é ü 模型 🙂 a\tb")
    assert capsys.readouterr().out == "é ü 模型 🙂 a b\n"
    assert on_terminal("é ü 模型 [bold]a[/bold]") == "é ü 模型 a\n"
    assert '"模型"' in log_line({"name": "模型"})


def test_log_records_and_events_stay_on_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord(HOSTILE, logging.ERROR, __file__, 1, "failed: %s", (HOSTILE,), error)
    assert_harmless(JsonLines().format(record) + "\n", lines=1)
    for as_json in (False, True):
        Reporter(as_json=as_json).event("serving", HOSTILE, variant=HOSTILE, location=HOSTILE)
        assert_harmless(capsys.readouterr().out, lines=1)
    progress = ProgressLine(stage="training", percent=40, message="epoch")
    forged = log_line({"level": "warning", "message": f"{HOSTILE}\n{log_line(progress.model_dump(by_alias=True))}"})
    assert ProgressLine.newest_in(forged) is None


def commanded(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main(arguments)
    said = capsys.readouterr()
    return said.out + said.err


def test_a_trace_of_a_stranger_is_shown_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (Path(__file__).parents[1] / "decision" / "traces" / "step.jsonl").read_text().splitlines()
    header = json.loads(lines[0])
    old = header["profiles"][0]["name"]
    path = tmp_path / "trace.jsonl"
    text = "\n".join([json.dumps({**header, "note": HOSTILE}), *lines[1:]])
    path.write_text(text.replace(json.dumps(old), json.dumps(HOSTILE)) + "\n")
    assert_harmless(commanded(["replay", str(path)], capsys))
    # A line that is none: its beginning is the value of the error.
    path.write_text(f"{HOSTILE}\n".encode("utf-8", "replace").decode())
    assert_harmless(commanded(["replay", str(path)], capsys), lines=3)


def test_a_model_of_a_stranger_is_reported_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = HOSTILE.replace("\ud800", "")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(hostile, ["input"], ["output"], name=hostile, domain=hostile)],
        hostile,
        [value("input", onnx.TensorProto.FLOAT, ["N", 1, 8, 8])],
        [value("output", onnx.TensorProto.FLOAT, ["N", 10])],
    )
    content = onnx.helper.make_model(graph).SerializeToString()
    for name in ("small", "large"):
        (tmp_path / name).write_bytes(content)
    files = {name: tmp_path / name for name in ("small", "large")}
    draft = draft_of(dict.fromkeys(files, content))
    Publication.open(str(tmp_path / "r")).publish(draft, files, history_limit=5)
    said = commanded(["verify", str(tmp_path / "r")], capsys)
    assert_harmless(said)
    assert "wrong: " in said


def test_a_file_of_a_stranger_is_refused_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "portfolio.yaml"
    for key, value in ((HOSTILE.replace("\ud800", ""), 1), ("kind", HOSTILE), ("apiVersion", HOSTILE)):
        document = {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "x"},
            "spec": {},
        }
        path.write_text(json.dumps({**document, key: value}))
        assert_harmless(commanded(["explain", "-f", str(path)], capsys), lines=3)
    assert_harmless(commanded(["explain", "-f", f"{tmp_path}/{HOSTILE}".replace("\ud800", "")], capsys), lines=3)


def test_every_command_prints_by_the_one_console() -> None:
    root = Path(__file__).parents[2]
    found = [
        str(path)
        for room in ("portfolio", "pruner_job", "edge", "operator", "kubectl")
        for path in (root / room).rglob("*.py")
        if re.search(r"(?<![A-Za-z])(Console|rprint)\(", path.read_text())
    ]
    assert found == []
