"""Little shared memory: said before the start; never a variant's fault; what serves serves on."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from triton_agent import Command, eventually, write_portfolio
from triton_load import Clients, failed
from triton_portfolios import MODEL, images, publish, revealing_model
from tritonclient.utils import InferenceServerException

from edgefolio_edge.triton.processes import PROCESSES, SHARED_MEMORY

ANY_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
#: One sample is 1 MiB.
SIZE = 512


def _little(size: str) -> list[str]:
    """A command in a mount namespace of its own, with so much shared memory."""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, "sh"]


class Place:
    def __init__(self, folder: Path, *, size: int = SIZE) -> None:
        self.repository, self.file, self.state = folder / "portfolios", folder / "portfolio.json", folder / "state"
        publish(self.repository, [revealing_model(1, width=2, layers=1, size=size)], size=size)
        write_portfolio(self.file, repository=self.repository, model=MODEL)

    def run(self, *, shared_memory: str) -> Command:
        options = ("run", "-f", str(self.file), "--json", "--state-dir", str(self.state), *ANY_PORTS)
        return Command(*options, prefix=_little(shared_memory))


@pytest.fixture(autouse=True)
def _may_mount() -> None:
    if subprocess.run([*_little("64k"), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small /dev/shm needs privileges")


@functools.cache
def _values(samples: int) -> NDArray[np.float32]:
    return images(samples, size=SIZE)


def _ask(endpoint: str, samples: int) -> None:
    client = triton_grpc.InferenceServerClient(endpoint)
    values = _values(samples)
    tensor = triton_grpc.InferInput("image", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    try:
        client.infer(MODEL, [tensor], client_timeout=60)
    finally:
        client.close()


def test_too_little_is_said_before_anything_starts(tmp_path: Path) -> None:
    place = Place(tmp_path)
    agent = place.run(shared_memory="8m")
    assert agent.wait() == 2
    assert "/dev/shm" in agent.errors
    assert "8 MiB free" in agent.errors
    assert not agent.events("started")
    serve = Command(
        *("serve", "--repository", str(place.repository), "--model", MODEL, "--json", *ANY_PORTS), prefix=_little("8m")
    )
    assert serve.wait() == 2
    assert "/dev/shm" in serve.errors


def _shared_memory_of(agent: Command) -> Path:
    """Shared memory as the agent sees it, in a mount of its own."""
    return PROCESSES / str(agent.process.pid) / "root" / SHARED_MEMORY.relative_to("/")


def test_a_switch_without_room_leaves_the_old_variant_alone_and_blames_nobody(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.run(shared_memory="64m") as agent:
        serving = agent.wait_for("serving")
        largest = agent.wait_for("bounded")["largestBatch"]
        assert 4 <= largest <= 10
        _ask(serving["grpc"], largest)
        with pytest.raises(InferenceServerException, match=f"<= {largest}"):
            _ask(serving["grpc"], largest + 1)
        # Somebody else fills what is left: only its own mount shows it.
        others = _shared_memory_of(agent) / "others"
        left = os.statvfs(others.parent)
        # All but a little: how much the regions have grown to depends on the allocator.
        others.write_bytes(bytes(left.f_bavail * left.f_frsize - (4 << 20)))
        publish(place.repository, [revealing_model(2, width=2, layers=1, size=SIZE)], size=SIZE)
        shortage = agent.wait_for("shortage")
        assert "no room in shared memory" in shortage["message"]
        assert shortage["restored"] is True
        _ask(serving["grpc"], 1)

        def status() -> Any:
            return json.loads((place.state / "status.json").read_text())

        # It is written at the end of a cycle.
        eventually(lambda: status()["activeVariant"] == "variant-1 of revision 1")
        assert status()["quarantined"] == []
        others.unlink()
        agent.wait_for("switch", version=201)
        assert not agent.events("failed")
        assert not agent.events("refused")
        assert len(agent.events("shortage")) == 1
        assert agent.stop() == 0


def test_batches_that_find_no_room_are_no_evidence_against_a_variant(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.run(shared_memory="64m") as agent:
        serving = agent.wait_for("serving")
        folder = _shared_memory_of(agent)
        others, size = folder / "others", os.statvfs(folder)
        others.write_bytes(bytes(size.f_bavail * size.f_frsize))
        for _ in range(24):
            with pytest.raises(InferenceServerException, match="shared memory"):
                _ask(serving["grpc"], 7)
        time.sleep(2)
        assert json.loads((place.state / "status.json").read_text())["quarantined"] == []
        others.unlink()
        _ask(serving["grpc"], 7)
        assert not agent.events("failed")
        assert agent.stop() == 0


def test_switches_go_on_where_there_is_room_for_two(tmp_path: Path) -> None:
    place = Place(tmp_path, size=12)
    with place.run(shared_memory="24m") as agent:
        serving = agent.wait_for("serving")
        with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=1, think=0.02) as clients:
            for tag in (2, 3, 4):
                publish(place.repository, [revealing_model(tag)])
                agent.wait_for("switch", version=100 * tag + 1)
        assert failed(clients.requests()) == []
        assert not agent.events("shortage")
        assert agent.stop() == 0
