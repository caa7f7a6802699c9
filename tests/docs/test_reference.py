"""The reference pages are what the code says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent


def script(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Where dataclasses look up their annotations.
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return script("generate_reference")


@pytest.mark.parametrize(
    "page",
    [
        "commands.md",
        "kubectl.md",
        "resource.md",
        "endpoint.md",
        "reasons.md",
        "metrics.md",
        "rights.md",
        "components.md",
        "profile.schema.json",
    ],
)
def test_the_reference_page_is_not_stale(generator: ModuleType, page: str) -> None:
    assert (ROOT / "docs/reference" / page).read_text() == generator.pages()[page], "run: make docs"


def test_the_picture_of_the_layers_is_not_stale() -> None:
    assert (ROOT / "docs/layers.svg").read_text() == script("draw_layers").drawn(), "run: make docs"


def test_imports_that_close_circles_stand_out() -> None:
    backward = script("draw_layers").backward
    line = {"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset[str]()}
    assert backward(line) == set()
    assert backward({**line, "c": frozenset("a")}) == {("c", "a")}
