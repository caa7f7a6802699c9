"""The wall clock of Triton itself is set forward by years and back: loads still end, and say how."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from triton_portfolios import MODEL
from triton_site import Site, open_site

from edgefolio.manifest import Manifest
from edgefolio_edge.models.triton_configuration import configuration_of
from edgefolio_edge.triton.client import ControlError
from edgefolio_edge.triton.launcher import server as server_module

CLOCK = Path(__file__).parents[1] / "cluster" / "bed" / "clock" / "clock.c"
YEAR = 365 * 86_400
Step = Callable[[float], None]


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Sets the clock of each Triton that is started from here on off by so many seconds."""
    if shutil.which("gcc") is None:
        pytest.skip("no compiler for the clock that is preloaded")
    shift, library = tmp_path / "shift", tmp_path / "clock.so"
    shift.write_bytes(bytes(8))
    subprocess.run(["gcc", "-shared", "-fPIC", f'-DSHIFT="{shift}"', "-o", library, CLOCK], check=True)
    environment_for = server_module.environment_for
    monkeypatch.setattr(
        server_module, "environment_for", lambda *a, **k: {**environment_for(*a, **k), "LD_PRELOAD": str(library)}
    )

    def step(seconds: float) -> None:
        # In place, by one write: Triton has mapped this very file.
        opened = os.open(shift, os.O_WRONLY)
        os.pwrite(opened, struct.pack("=q", round(seconds * 1e9)), 0)
        os.close(opened)

    return step


@pytest.fixture
def stepped(step: Step, tmp_path: Path, manifest: Manifest, repository: Path) -> Iterator[Site]:
    """A server that serves variant 1 and whose clock went forward, back, and is right again, while it was asked."""
    opened = open_site(tmp_path / "site", manifest, repository)
    site = next(opened)
    site.serve(1)
    for seconds in (10.0, -30.0, 20.0 * YEAR, -20.0 * YEAR, 0.0):
        step(seconds)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            site.control.ready_versions(MODEL)
            time.sleep(0.2)
    yield site
    for _ in opened:
        pass


def test_a_load_that_fails_says_why(stepped: Site) -> None:
    wrong = stepped.placement(2)
    probe = stepped.store.path_of(stepped.manifest, wrong.variant).parent / "probe.json"
    document = json.loads(probe.read_bytes())
    probe.write_text(json.dumps({**document, "absoluteTolerance": -1.0}))
    configuration = configuration_of(
        stepped.manifest, model_name=MODEL, threads=1, versions=[stepped.placement(1).version, wrong.version]
    )
    with pytest.raises(ControlError, match="probe") as caught:
        stepped.control.load(MODEL, configuration, seconds=60)
    assert not caught.value.timed_out
    assert stepped.switcher.canary(stepped.placement(1)) is None


def test_switches_go_on(stepped: Site) -> None:
    for rank, before in ((3, 1), (2, 3)):
        outcome = stepped.switcher.switch(stepped.placement(rank), previous=stepped.placement(before))
        assert outcome.succeeded, outcome
        assert stepped.control.ready_versions(MODEL) == (stepped.placement(rank).version,)
    assert stepped.switcher.load_standby(stepped.placement(1), active=stepped.placement(2)).succeeded
    assert stepped.switcher.release_standby(stepped.placement(2))
