"""The key of a pruning run covers the code that builds the network."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefolio.specification import Architecture
from edgefolio_pruner.callables import imported, source_files
from edgefolio_pruner.model_source.loading import build_architecture
from edgefolio_pruner.model_source.model_code import code_digest
from edgefolio_pruner.scoring.factory import OwnMetric

NETS = """
import random
import numpy as np
import torch
from torch import nn
from {package}helpers import act

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3)
        self.slope = {slope}
        self.register_buffer("constant", torch.tensor({constant}), persistent=False)
        self.drawn = float(np.random.rand()) + random.random()

    def forward(self, x):
        return act(self.layer(x)).mean((2, 3)) * self.slope + self.constant

def build():
    return Net()
"""
HELPERS = "import torch\n\ndef act(x):\n    return torch.{name}(x)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("code_nets", "code_pkg", "helpers")]:
        del sys.modules[name]


def digest(folder: Path, *, package: bool = False, given: bool = True, name: str = "relu", **values: Any) -> str | None:
    """Of the code as it is written now, in a fresh import."""
    root = folder / "code_pkg" / "inner" if package else folder
    root.mkdir(parents=True, exist_ok=True)
    prefix = "code_pkg.inner." if package else ""
    for init in (folder / "code_pkg", root) if package else ():
        (init / "__init__.py").touch()
    options = {"slope": 1.0, "constant": 0.0, "package": prefix} | values
    (root / "code_nets.py").write_text(NETS.format(**options))
    (root / "helpers.py").write_text(HELPERS.format(name=name))
    for module in [name for name in sys.modules if name.partition(".")[0] in ("code_nets", "code_pkg", "helpers")]:
        del sys.modules[module]
    importlib.invalidate_caches()
    sys.dont_write_bytecode = True
    architecture = Architecture(library="factory", name=f"{prefix}code_nets:build")
    return code_digest(architecture, build_architecture(architecture), given_weights=given)


@pytest.mark.parametrize("package", [False, True])
def test_an_edit_anywhere_in_the_users_code_changes_it(folder: Path, *, package: bool) -> None:
    plain = digest(folder, package=package)
    assert digest(folder, package=package) == plain
    assert digest(folder, package=package, name="tanh") != plain
    assert digest(folder, package=package, slope=2.0) != plain
    assert digest(folder, package=package, constant=1.0) != plain
    assert digest(folder, package=package) == plain


def test_what_is_read_from_elsewhere_changes_it_through_the_state(folder: Path) -> None:
    (folder / "value.txt").write_text("1.0")
    read = f"float(__import__('pathlib').Path({str(folder / 'value.txt')!r}).read_text())"
    plain = digest(folder, constant=read)
    assert digest(folder, constant=read) == plain
    (folder / "value.txt").write_text("2.0")
    assert digest(folder, constant=read) != plain


def test_every_generator_that_a_network_draws_from_is_seeded(folder: Path) -> None:
    digest(folder)
    architecture = Architecture(library="factory", name="code_nets:build")
    first, again = (build_architecture(architecture, seed=3) for _ in range(2))
    assert first.drawn == again.drawn
    assert first.drawn != build_architecture(architecture, seed=4).drawn


def test_libraries_count_by_version_and_own_networks_not_at_all() -> None:
    own = Architecture(library="edgefolio", name="resnet8")
    assert code_digest(own, build_architecture(own), given_weights=False) is None
    timm = Architecture(library="timm", name="resnet10t", options={"num_classes": 3})
    one, other = (code_digest(timm, build_architecture(timm, seed=seed), given_weights=True) for seed in (0, 1))
    assert one == other


LAZY = """
def build():
    from helpers import act
    from torch import nn
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU())

def score(outputs, targets):
    import code_pkg.inner.parts as parts
    from code_pkg.inner import other
    return parts.POWER
"""


@pytest.mark.parametrize(
    "edited", ["helpers.py", "code_pkg/inner/parts.py", "code_pkg/inner/deeper.py", "code_pkg/inner/other.py"]
)
def test_what_is_imported_when_the_code_runs_counts_before_it_has_run(folder: Path, edited: str) -> None:
    (folder / "code_pkg" / "inner").mkdir(parents=True)
    files = {
        "code_nets.py": LAZY,
        "helpers.py": "act = 1\n",
        "code_pkg/__init__.py": "",
        "code_pkg/inner/__init__.py": "",
        "code_pkg/inner/parts.py": "def power():\n    from .deeper import POWER\n    return POWER\nPOWER = 2\n",
        "code_pkg/inner/deeper.py": "from .. import inner\nPOWER = 3\n",
        "code_pkg/inner/other.py": "import code_nets\n",
        "unrelated.py": "broken (\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    importlib.import_module("code_nets")
    before = source_files("code_nets")
    assert {str(path.relative_to(folder.resolve())) for path in before} == files.keys() - {"unrelated.py"}
    plain = OwnMetric("code_nets:score", higher_is_better=True).code_sha256
    (folder / edited).write_text(files[edited] + "# edited\n")
    assert OwnMetric("code_nets:score", higher_is_better=True).code_sha256 != plain
    assert source_files("torch") == frozenset()


def test_code_that_imports_its_helpers_when_it_is_called_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helpers.py").write_text("act = 7\n")
    (tmp_path / "code_nets.py").write_text("def build():\n    from helpers import act\n    return act\n")
    try:
        assert imported("code_nets:build", field="f", example="a:b")() == 7
    finally:
        for name in ("code_nets", "helpers"):
            sys.modules.pop(name, None)
