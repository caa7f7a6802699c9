"""The operator's site in memory: what the commands show is what the real core wrote."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "operator"))

from reconciled_site import Site


@pytest.fixture
def serving() -> Site:
    """Two endpoints that serve the first revision."""
    return Site().served()
