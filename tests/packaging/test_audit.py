"""The lists of what each image holds, and that silence about vulnerabilities is never taken for none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import audit
import pytest


def test_each_image_is_listed_with_all_that_it_needs() -> None:
    found = {name: audit.closure(requirements) for name, requirements in audit.images().items()}
    assert found.keys() == {"operator", "edge", "triton", "pruner"}
    # Needed by what is needed: aiohttp's own.
    assert {"aiohttp", "kopf", "multidict"} <= found["operator"].keys()
    assert {"torch", "onnx"} <= found["pruner"].keys()
    assert "torch" not in {*found["operator"], *found["edge"], *found["triton"]}
    # By an extra of a package: tritonclient[grpc].
    assert "grpcio" in found["edge"]
    versions = audit.pinned()
    for packages in found.values():
        assert {name: versions.get(name) for name in packages if name != "setuptools"} == {
            name: version for name, version in packages.items() if name != "setuptools"
        }


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (None, 3),
        ([{"name": "a", "skip_reason": "Dependency not found on PyPI"}], 3),
        ([{"name": "a", "version": "1", "vulns": []}], 0),
        ([{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "x"}], 0),
        ([{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}], 1),
    ],
    ids=["no answer", "every package unknown", "nothing known", "one unknown", "one vulnerable"],
)
def test_what_is_not_asked_is_not_sound(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    written: list[dict[str, Any]] | None,
    code: int,
) -> None:
    """pip-audit's answer is played: advisories are somewhere else, and change."""
    monkeypatch.setattr(audit, "TOOLS", tmp_path)
    monkeypatch.setattr(audit, "OUTPUT", tmp_path)
    answer = "" if written is None else json.dumps({"dependencies": written})
    program = tmp_path / "pip-audit"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"answer = {answer!r}\n"
        "answer and open(sys.argv[sys.argv.index('--output') + 1], 'w').write(answer)\n"
        "answer or sys.exit('Failed to connect')\n"
    )
    program.chmod(0o755)
    assert audit.ask() == code
    said = capsys.readouterr()
    # Both services are asked before it is given up.
    assert said.err.count("NOT ASKED") == (2 if code == 3 else 0)
    assert ("CVE-1, mended in: 2" in said.out) == (code == 1)


def test_the_environment_is_made_when_it_is_asked_for_alone() -> None:
    """No other target installs the tools."""
    makefile = (audit.ROOT / "Makefile").read_text()
    assert makefile.count("scripts/environment audit") == 1
    done = subprocess.run(["make", "-n", "-C", str(audit.ROOT), "test"], capture_output=True, text=True, check=True)
    assert "environment audit" not in done.stdout


def test_what_is_pinned_is_compared_without_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.compare_components() == 0
    assert "ONNX Runtime" in capsys.readouterr().out
    monkeypatch.setattr(audit, "pinned", lambda: {"onnx": "1.20.0", "onnxruntime": "1.26.0"})
    assert audit.compare_components() == 2
    said = capsys.readouterr().out
    assert "onnx 1.20.0: CVE-2026-27489" in said
    assert "ONNX Runtime 1.26.0: no number, mended in: 1.27.0" in said
