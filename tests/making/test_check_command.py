"""``edgefolio check``: what it says of a portfolio that can be made, and of one that cannot; it makes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from edgefolio.commands.main import build_app

PORTFOLIO: dict[str, Any] = {
    "apiVersion": "edgefolio.dev/v1alpha1",
    "kind": "ModelPortfolio",
    "metadata": {"name": "check"},
    "spec": {
        "source": {"architecture": {"library": "edgefolio", "name": "resnet8", "options": {"width": 8}}},
        "data": {"trainingURI": "./images", "imageSize": 16},
        "methods": {"sparseTraining": {"denseEpochs": 1, "levels": 1}, "oneShot": {"macsPercent": [50]}},
        "repository": {"uri": "./portfolios"},
        "serving": {"modelName": "check"},
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("ant", "bee [x]", "cat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(16):
            pixels = generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "images" / "cat" / "._0.png").write_bytes(b"fork")
    return tmp_path


def check(folder: Path, *arguments: str, **changes: Any) -> tuple[int, str, str]:
    document = json.loads(json.dumps(PORTFOLIO))
    for path, value in changes.items():
        *way, last = path.split("__")
        place = document["spec"]
        for name in way:
            place = place[name]
        place[last] = value
    (folder / "portfolio.yaml").write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(build_app(), ["check", "-f", "portfolio.yaml", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_what_is_understood_is_told_and_nothing_is_made(folder: Path) -> None:
    code, out, _ = check(folder, "--report", "check.html")
    assert code == 0, out
    for text in (
        "3, in this order: ant, bee [x], cat",
        "trained from scratch",
        "groups of channels",
        "about",
        "3x16x16",
    ):
        assert text in " ".join(out.split())
    assert "files that are no pictures were skipped: 1 .png" in " ".join(out.split())
    page = (folder / "check.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "1: bee [x]" in page
    assert "http" not in page.replace("http-equiv", "")
    assert not (folder / "portfolios").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["check.html", "images", "portfolio.yaml"]


def test_json_is_all_of_it(folder: Path) -> None:
    code, out, _ = check(folder, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["classes"] == ["ant", "bee [x]", "cat"]
    assert found["preprocessing"]["pictures"]["centreCrop"] == 16
    assert found["weights"] is None
    assert sum(found["classSamples"][part][0] for part in ("training", "validation", "test")) == 16
    assert {entry["prunable"] for entry in found["groups"]} >= {True}
    assert 0 < found["oneShot"]["leastMacsPercent"] < 100
    assert set(found["forecast"]["memoryBytes"]) == {"proof and export", "training", "one-shot"}
    assert found["forecast"]["seconds"] > 0


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({"data__trainingURI": "./nowhere"}, "spec.data.trainingURI"),
    "sizes": ({"data": {"trainingURI": "./images", "imageSize": 16, "classNames": ["a", "b"]}}, "spec.data.classNames"),
    "option": ({"source__architecture__options": {"width": 8, "height": 2}}, "spec.source.architecture.options"),
    "no weights": ({"source__weightsURI": "./w.safetensors"}, "spec.source.weightsURI"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_cannot_be_made_is_one_error_with_field_and_remedy(folder: Path, case: str) -> None:
    changes, field = WRONG[case]
    code, out, error = check(folder, "--json", **changes)
    assert code == 2
    assert out == ""
    assert f"field:  {field}" in error
    assert "remedy:" in error


@pytest.mark.parametrize("memory", ["4 GB", "12Mi", "-1Gi", "much"])
def test_memory_that_is_none_is_refused(folder: Path, memory: str) -> None:
    code, _, error = check(folder, "--memory", memory)
    assert code == 2
    assert "field:  --memory" in error
