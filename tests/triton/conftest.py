"""One server for each test module and a published portfolio."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The helpers beside this file, under names that no other area uses.
sys.path.insert(0, str(Path(__file__).parent))

from triton_portfolios import publish, revealing_model
from triton_site import Site, open_site

from edgefolio.manifest import Manifest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.triton)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published") / "portfolios"


@pytest.fixture(scope="module")
def manifest(repository: Path) -> Manifest:
    return publish(repository, [revealing_model(tag, width=4 * tag) for tag in (1, 2, 3, 4)])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest, repository: Path) -> Iterator[Site]:
    yield from open_site(tmp_path_factory.mktemp("site"), manifest, repository)
