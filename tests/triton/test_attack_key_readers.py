"""Other users of the machine look for the key of Triton's control interface, and for what its environment holds."""

from __future__ import annotations

import http.client
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from triton_portfolios import MODEL
from triton_remains import remains_of
from triton_site import Site

from edgefolio_edge.triton.client import ControlError, TritonControl
from edgefolio_edge.triton.launcher import secret_options
from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.processes import shared_memory_of
from edgefolio_edge.triton.switcher import Switcher

_KEY = re.compile(rb"[0-9a-f]{48}")


class Watcher:
    """Reads every command line of the machine, again and again, as any local user may."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.rounds = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.rounds += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.update(_KEY.findall(path.read_bytes()))
                except OSError:
                    continue


@contextmanager
def started(site: Site) -> Iterator[TritonServer]:
    server = TritonServer.start(site.server.settings)
    try:
        yield server
    finally:
        server.stop()
    assert remains_of(server) == ()


def closed_but_for_the_key(server: TritonServer) -> bool:
    """Whether control opens to the key alone, and by gRPC alone."""
    server.control().ready_versions(MODEL)
    with pytest.raises(ControlError, match="restricted"):
        TritonControl(server.grpc_endpoint).ready_versions(MODEL)
    statuses = []
    for headers in ({}, {server.key.name: server.key.secret}):
        connection = http.client.HTTPConnection(server.http_endpoint, timeout=5)
        connection.request("POST", "/v2/repository/index", b"{}", headers)
        statuses.append(connection.getresponse().status)
        connection.close()
    return statuses == [404, 404]


def test_the_key_never_stands_in_a_command_line(site: Site) -> None:
    with Watcher() as watcher, started(site) as server:
        assert closed_but_for_the_key(server)
        assert Switcher(server.control(), site.store).switch(site.placement(1)).succeeded
        processes = [server.identity, *server.stubs()]
        assert len(processes) == 2
        for process in processes:
            # Its own user alone may read this, and even there it is gone: a model's process has no use for it.
            assert server.key.secret.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
    assert watcher.rounds >= 2
    assert server.key.secret.encode() not in watcher.seen


def test_a_kernel_that_lets_nobody_be_traced_shows_it_no_longer_than_the_start(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_pid: int, _count: int) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(secret_options, "_point_to_environment", refuse)
    with caplog.at_level(logging.WARNING), started(site) as server:
        assert closed_but_for_the_key(server)
        assert server.key.secret.encode() not in Path(f"/proc/{server.identity.pid}/cmdline").read_bytes()
    assert "Until Triton answered" in caplog.text


def test_server_and_backend_inherit_no_credentials(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD", "TOKEN", "KUBECONFIG", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "canary-7d1")
    with started(site) as server:
        assert Switcher(server.control(), site.store).switch(site.placement(1)).succeeded
        for process in (server.identity, *server.stubs()):
            assert b"canary-7d1" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_tensors_in_shared_memory_are_its_users_alone(site: Site) -> None:
    with started(site) as server:
        assert Switcher(server.control(), site.store).switch(site.placement(1)).succeeded
        regions = shared_memory_of(server.shared_memory_prefix)
        assert regions
        assert {region.stat().st_mode & 0o077 for region in regions} == {0}
