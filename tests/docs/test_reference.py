"""The reference pages are what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    specification = importlib.util.spec_from_file_location("generate_reference", ROOT / "scripts/generate_reference.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "page", ["commands.md", "kubectl.md", "resource.md", "endpoint.md", "reasons.md", "metrics.md", "rights.md"]
)
def test_the_reference_page_is_not_stale(generator: ModuleType, page: str) -> None:
    assert (ROOT / "docs/reference" / page).read_text() == generator.pages()[page], "run: make docs"
