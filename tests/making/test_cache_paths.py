"""Caches lie where earlier versions put them on Linux."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgefolio.specification.loading import load_portfolio
from edgefolio_pruner.data.readers.fashion_mnist import cache_folder
from edgefolio_pruner.work.directory import default_work_directory


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have caches of their own")
@pytest.mark.parametrize("xdg", ["/somewhere/cache", "", None])
def test_caches_follow_xdg_cache_home(xdg: str | None, monkeypatch: pytest.MonkeyPatch, portfolio_file) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    if xdg is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    base = Path(xdg or "/home/somebody/.cache") / "edgefolio"
    assert cache_folder() == base / "fashion-mnist"
    work = default_work_directory(load_portfolio(portfolio_file()))
    assert (work.parent, work.name.partition("-")[0]) == (base / "work", "digits")
    assert not base.exists()
