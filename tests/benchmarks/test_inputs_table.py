"""The table of small portfolios: each case in a process of its own, and one line for whatever it gives."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from benchmarks import inputs

NETS = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(){last})
"""


def case(root: Path, name: str, *, right: str = "refused", **files: str) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"{name}: a | case\nRight: {right}\n")
    for file, text in files.items():
        (folder / file.replace("_yaml", ".yaml").replace("_py", ".py")).write_text(text)


def test_every_kind_of_end_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = tmp_path / "cases"
    case(cases, "a-shrunk", right="done", nets_py=NETS.format(last=""))
    case(cases, "b-bad-file", portfolio_yaml="kind: Nothing\n")
    case(cases, "c-no-data", portfolio_yaml="", make_data_py="raise SystemExit(1)\n")
    case(cases, "d-endless", portfolio_yaml="", make_data_py="")
    results = tmp_path / "inputs.md"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "verdicts.json").write_text(json.dumps({"a-shrunk": True, "c-no-data": False}))
    arguments = ["inputs", str(cases), "--scratch", str(scratch), "--results", str(results)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "a-shrunk", "b-bad-file", "c-no-data"])
    inputs.main()
    lines = [line for line in results.read_text().splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[3] for line in lines] == ["done", "refused", "failed"]
    assert "a \\| case" in lines[0]
    assert "channels removed | yes |" in lines[0]
    assert "Remedy:" in lines[1]
    assert lines[2].endswith("| no |")
    assert "3 cases: 1 done, 1 refused, 1 failed" in results.read_text()
    # Cases that ran before stay in the table; a process without an end is a failure.
    monkeypatch.setattr(inputs, "_COMMAND", [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(inputs, "SECONDS", 1)
    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "d-endless"])
    inputs.main()
    lines = [line for line in results.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(lines) == 4
    assert "no end within 1 s" in lines[3]
