"""One format of log lines in all pods."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from edgefolio.contract.job_report import ProgressLine
from edgefolio.contract.log_format import JsonLines, log_as_json, log_line


def test_a_line_begins_with_its_time_in_utc() -> None:
    line = log_line({"event": "switch", "milliseconds": 1.5, "path": object}, seconds=1_800_000_000.1234)
    assert line.startswith('{"time": "2027-01-15T08:00:00.123Z", "event": "switch"')
    assert json.loads(line)["path"] == "<class 'object'>"
    assert json.loads(log_line({}, seconds=0)) == {"time": "1970-01-01T00:00:00.000Z"}


def test_a_record_with_a_traceback_is_one_line() -> None:
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("edgefolio.x", logging.ERROR, __file__, 1, "failed: %s", ("ä",), error)
    record.created = 1_800_000_000.0
    line = JsonLines().format(record)
    assert "\n" not in line
    document = json.loads(line)
    assert "ValueError: one\ntwo" in document.pop("exception")
    assert document == {
        "time": "2027-01-15T08:00:00.000Z",
        "level": "error",
        "logger": "edgefolio.x",
        "message": "failed: ä",
    }


def test_progress_is_found_among_warnings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.NOTSET)
    log_as_json(level=logging.WARNING)
    progress = ProgressLine(stage="training", percent=40, message="epoch 2/5")
    print(log_line(progress.model_dump(by_alias=True)))
    logging.getLogger("edgefolio_pruner.stages").warning("the work directory was not copied")
    logging.getLogger("edgefolio_pruner.stages").info("nothing to see")
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 2
    assert ProgressLine.newest_in(said) == progress
