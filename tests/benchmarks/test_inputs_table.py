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
    verdicts = tmp_path / "verdicts.json"
    verdicts.write_text(json.dumps({"a-shrunk": {"is_right": True}, "c-no-data": {"is_right": False, "why": "late"}}))
    arguments = [
        "inputs",
        str(cases),
        "--scratch",
        str(scratch),
        "--results",
        str(results),
        "--verdicts",
        str(verdicts),
    ]
    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "a-shrunk", "b-bad-file", "c-no-data"])
    inputs.main()
    lines = [line for line in results.read_text().splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[3] for line in lines] == ["done", "refused", "failed"]
    assert "a \\| case" in lines[0]
    assert "channels removed | yes |" in lines[0]
    assert "Remedy:" in lines[1]
    assert lines[2].endswith("| no: late |")
    assert "3 cases: 1 done, 1 refused, 1 failed; 1 as is right" in results.read_text()
    found = json.loads(results.with_suffix(".json").read_text())["cases"]
    assert [(entry["name"], entry.get("is_right")) for entry in found] == [
        ("a-shrunk", True),
        ("b-bad-file", None),
        ("c-no-data", False),
    ]
    # Cases that ran before stay in the table; a process without an end is a failure.
    monkeypatch.setattr(inputs, "_COMMAND", [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(inputs, "SECONDS", 1)
    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "d-endless"])
    inputs.main()
    lines = [line for line in results.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(lines) == 4
    assert "no end within 1 s" in lines[3]


DATA = """
import numpy as np
y = np.arange(60) % 2
x = (np.random.default_rng(0).normal(0, 20, (60, 3, 8, 8)) + 60 + 120 * y[:, None, None, None]).clip(0, 255)
np.savez("data.npz", x=x.astype(np.uint8), y=y)
"""
PORTFOLIO = """
apiVersion: edgefolio.dev/v1alpha1
kind: ModelPortfolio
metadata: {name: case}
spec:
  source: {architecture: {library: factory, name: "nets:build"}, weightsURI: ./w.safetensors}
  data: {trainingURI: ./data.npz, calibrationSamples: 32}
  methods: {oneShot: {macsPercent: [60]}}
  profiling: {samples: 20, rounds: 2}
  repository: {uri: ./portfolios}
  serving: {modelName: case}
"""


def test_a_network_is_trained_first_and_an_edit_of_its_code_is_a_second_run(tmp_path: Path) -> None:
    nets = NETS.format(last=", nn.Linear(144, 2)")
    case(tmp_path, "edited", nets_py=nets, make_data_py=DATA, portfolio_yaml=PORTFOLIO)
    (tmp_path / "edited" / "nets.other").write_text(nets.replace("nn.ReLU", "nn.Tanh"))
    seen = inputs.run(tmp_path / "edited", tmp_path / "scratch", train=True)
    assert seen.result == "done", seen.detail
    after, _, before = seen.detail.partition("before it")
    assert "(revision 2)" in after
    assert "trained first" in before
    assert "(revision 1)" in before
