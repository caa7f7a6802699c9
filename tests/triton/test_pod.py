"""The agent in a pod whose API server is away: what it tells the kubelet, and what it brings back by itself."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from triton_pod import Pod, cut_off, write_order
from triton_portfolios import publish, revealing_model

from edgefolio.manifest import Manifest, sha256_of
from edgefolio_edge.triton.processes import stubs_of

#: Nobody waits longer than this for a server that came back.
SECONDS_TO_SERVE = 15.0


class Place:
    """A pod, its repository, and what the operator ordered before it went away."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "portfolios"
        self.manifest: Manifest = publish(self.repository, [revealing_model(tag, width=4 * tag) for tag in (1, 2, 3)])
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            environment = cut_off(folder, port=unused.getsockname()[1], repository=self.repository)
        self.pod = Pod(folder / "pod", environment)
        self.order("variant-2")

    def order(self, target: str) -> None:
        digest = sha256_of(self.manifest.to_bytes())
        write_order(
            self.pod.state,
            targetVariant=target,
            revision={"number": 1, "manifestDigest": digest},
            switching={"probeIntervalSeconds": 1, "observeSeconds": "0.2"},
        )

    def serve(self) -> None:
        """Start both and wait until it serves."""
        self.pod.start_triton()
        self.pod.start_agent()
        self.pod.wait_until(lambda: self.pod.says("serving"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.pod.end()


def test_variants_are_on_disk_before_triton_starts(place: Place) -> None:
    pod = place.pod
    pod.start_agent()
    pod.wait_until(lambda: pod.says("synced"))
    assert not pod.says("serving")
    pod.start_triton()
    pod.wait_until(lambda: pod.says("serving"))
    assert pod.answered_by() == 2
    assert pod.events("failed") == []


def test_a_killed_backend_is_repaired_and_nobody_restarts_the_server(place: Place) -> None:
    place.serve()
    pod, server = place.pod, place.pod.triton
    assert server is not None
    for stub in stubs_of(server.identity):
        stub.kill()
    pod.wait_until(lambda: not pod.says("serving"))
    pod.wait_until(lambda: pod.says("serving"))
    assert pod.answered_by() == 2
    assert not pod.says("restart")
    assert server.is_alive()


def test_a_backend_that_cannot_be_repaired_needs_a_new_server(place: Place) -> None:
    place.serve()
    pod, server = place.pod, place.pod.triton
    assert server is not None
    shutil.rmtree(server.runtime / "backends")  # no backend starts here any more
    for stub in stubs_of(server.identity):
        stub.kill()
    pod.wait_until(lambda: pod.says("restart"))
    assert not pod.says("serving")
    server.stop(seconds=1)
    pod.start_triton()
    pod.wait_until(lambda: pod.says("serving"))
    assert not pod.says("restart")
    assert pod.answered_by() == 2


def test_a_server_that_hangs_needs_a_new_one(place: Place) -> None:
    place.serve()
    pod, server = place.pod, place.pod.triton
    assert server is not None
    psutil.Process(server.identity.pid).suspend()
    pod.wait_until(lambda: pod.says("restart"))
    assert not pod.says("serving")
    server.identity.kill()
    server.stop(seconds=1)
    # Whoever starts a server that is not ours may not know of the files: the agent takes its word back by itself.
    (pod.health / "restart").touch()
    pod.start_triton()
    (pod.health / "restart").touch()
    seconds = pod.wait_until(lambda: pod.says("serving") and not pod.says("restart"))
    assert seconds < SECONDS_TO_SERVE
    assert pod.answered_by() == 2


def test_a_killed_server_serves_again_soon_after_it_was_started(place: Place) -> None:
    place.serve()
    pod, server = place.pod, place.pod.triton
    assert server is not None
    server.identity.kill()
    pod.wait_until(lambda: not pod.says("serving"))
    server.stop()
    pod.start_triton()
    assert pod.wait_until(lambda: pod.says("serving")) < SECONDS_TO_SERVE
    assert pod.answered_by() == 2
    assert not pod.says("restart")
    assert pod.events("failed") == []


def test_a_pod_serves_again_without_api_server_and_repository(place: Place) -> None:
    place.serve()
    pod, server = place.pod, place.pod.triton
    assert server is not None
    pod.kill_agent()
    server.identity.kill()
    server.stop()
    shutil.rmtree(place.repository)
    place.serve()
    assert pod.answered_by() == 2
    cut_off, serving = pod.events("unheard")[-1], pod.events("serving")[-1]
    began, served = (datetime.fromisoformat(event["time"]) for event in (cut_off, serving))
    assert (served - began).total_seconds() < SECONDS_TO_SERVE


def test_a_first_revision_that_is_not_whole_serves_again_as_well(place: Place) -> None:
    (place.repository / "models" / "revealing" / "103" / "model.onnx").unlink()
    place.serve()
    pod, server = place.pod, place.pod.triton
    assert server is not None
    pod.kill_agent()
    server.identity.kill()
    server.stop()
    shutil.rmtree(place.repository)
    place.serve()
    assert pod.answered_by() == 2


def test_a_killed_agent_changes_nothing_for_a_server_that_serves(place: Place) -> None:
    place.serve()
    pod = place.pod
    silent = threading.Event()
    lost = []

    def watch() -> None:
        while not silent.is_set():
            lost.extend([] if pod.says("serving") else [time.monotonic()])
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    pod.kill_agent()
    pod.start_agent()
    pod.wait_until(lambda: len(pod.events("serving")) == 2)
    time.sleep(1)
    silent.set()
    watcher.join()
    assert lost == []
    assert pod.answered_by() == 2


def test_an_agent_that_is_started_beside_a_server_that_hangs_finds_it_out(place: Place) -> None:
    place.serve()
    pod, server = place.pod, place.pod.triton
    assert server is not None
    pod.kill_agent()
    psutil.Process(server.identity.pid).suspend()
    pod.start_agent()
    pod.wait_until(lambda: pod.says("restart"))
    assert not pod.says("serving")


def test_the_end_of_the_server_is_no_failure(place: Place) -> None:
    """The kubelet ends Triton first, and then the agent."""
    place.serve()
    pod, server = place.pod, place.pod.triton
    assert server is not None
    server.stop()
    pod.wait_until(lambda: not pod.says("serving"))
    time.sleep(1.5)
    assert not pod.says("restart")
    for name in ("failed", "condemned", "refused"):
        assert pod.events(name) == []
