"""The pages for own folder, weights, metric and ONNX file: their files and commands do what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_graphs import exported
from PIL import Image
from sklearn.datasets import load_digits
from task_nets import normalized, prepared, trained

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


def files_of(page: str) -> dict[str, str]:
    """The files of a page: blocks of code whose first line names them."""
    text = (PAGES / page).read_text()
    blocks = re.findall(r"^```(?:python|yaml)\n# ([\w.]+)[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return dict(blocks)


def commands_of(page: str) -> list[list[str]]:
    """The commands of a page: lines that are set in by four blanks."""
    return [
        shlex.split(line)
        for line in re.findall(r"^    ((?:edgefolio|python) .*)$", (PAGES / page).read_text(), flags=re.MULTILINE)
    ]


def pictures(folder: Path) -> None:
    random = np.random.default_rng(0)
    for level, name in ((60, "ant"), (190, "bee")):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(40):
            picture = random.normal(level, 30, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / "pictures" / name / f"{number}.png")


def digit_weights(folder: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(files_of("own-weights.md")["nets.py"], namespace)
    digits = load_digits()
    images = normalized(np.asarray(digits.images, dtype=np.float32)[:, None])
    module = trained(
        namespace["build"], images, torch.from_numpy(digits.target).long(), torch.nn.functional.cross_entropy, 150
    )
    # As people save it: from a wrapped network, with torch.save.
    torch.save({f"module.{name}": tensor for name, tensor in module.state_dict().items()}, folder / "weights.pt")


def digit_file(folder: Path) -> None:
    digits = load_digits()
    images = np.asarray(digits.images, dtype=np.float32)[:, None] / 16
    labels = torch.from_numpy(digits.target).long()

    def build() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, 2, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 10)
        )

    module = trained(build, torch.from_numpy(images), labels, torch.nn.functional.cross_entropy, 150)
    exported(module, (1, 8, 8), folder / "model.onnx", by="old 1")
    np.savez(folder / "digits.npz", x=images, y=digits.target)


PREPARED = {
    "own-onnx.md": digit_file,
    "own-data.md": pictures,
    "own-weights.md": digit_weights,
    "own-metric.md": lambda folder: prepared("Regression", folder),
}


@pytest.mark.parametrize("page", sorted(PREPARED))
def test_a_page_does_what_it_says(page: str, tmp_path: Path, edgefolio: Any) -> None:
    PREPARED[page](tmp_path)
    for name, text in files_of(page).items():
        (tmp_path / name).write_text(text)
    commands = commands_of(page)
    assert ["edgefolio", "make", "-f", "portfolio.yaml"] in commands
    assert len(commands) == 3
    for command in commands:
        if command[0] == "python":
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path)
                exec((tmp_path / command[1]).read_text(), {})
            continue
        finished = edgefolio(*command[1:], cwd=tmp_path)
        assert finished.code == 0, (command, finished.stderr[-2000:], finished.stdout[-2000:])
    assert list((tmp_path / "portfolios").rglob("model.onnx"))
    if page == "own-metric.md":
        floor = "serving: {modelName: prices}\n  objectives: {minAccuracyPercent: '90'}"
        text = (tmp_path / "portfolio.yaml").read_text().replace("serving: {modelName: prices}", floor)
        (tmp_path / "portfolio.yaml").write_text(text)
        explained = edgefolio("explain", "-f", "portfolio.yaml", cwd=tmp_path)
        assert "Asked: metrics:worst at least 90 % of the dense model's." in " ".join(explained.stdout.split())
        assert "accuracy" not in explained.stdout


def test_the_data_set_of_the_page(tmp_path: Path, edgefolio: Any) -> None:
    files = files_of("own-data.md")
    for name, text in files.items():
        (tmp_path / name).write_text(text.replace("./pictures, imageSize: 16", '"factory:my_data:build"'))
    finished = edgefolio("check", "-f", "portfolio.yaml", cwd=tmp_path)
    assert finished.code == 0, finished.stderr[-2000:]
    assert "ant" in finished.stdout
