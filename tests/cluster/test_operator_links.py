"""Links that die without a word: what was connected stays open and carries nothing any more."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_site import Operator, Site, wait_for

pytestmark = pytest.mark.long


class Proxy:
    """A TCP proxy whose connections can be frozen: like a router that forgot them, it drops all and says nothing."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[threading.Event] = []
        self._refusing = threading.Event()
        self._stopping = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def freeze(self) -> None:
        """From now on nothing passes on the connections that are open; new ones work."""
        for frozen in self._connections:
            frozen.set()

    def refuse(self, refuse: bool) -> None:
        """Whether new connections carry nothing either."""
        (self._refusing.set if refuse else self._refusing.clear)()

    def stop(self) -> None:
        self._stopping.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            frozen = threading.Event()
            if self._refusing.is_set():
                frozen.set()
            self._connections.append(frozen)
            threading.Thread(target=self._carry, args=(client, frozen), daemon=True).start()

    def _carry(self, client: socket.socket, frozen: threading.Event) -> None:
        with client, socket.create_connection(self._target) as server:
            while not self._stopping.is_set():
                readable, _, _ = select.select([client, server], [], [], 0.2)
                for source in readable:
                    try:
                        data = source.recv(65536)
                    except OSError:
                        return
                    if frozen.is_set():
                        if not data:
                            return
                        continue
                    if not data:
                        return
                    (server if source is client else client).sendall(data)


@pytest.fixture
def proxy(namespace: Any, tmp_path: Path) -> Iterator[tuple[Proxy, Path]]:
    """A proxy in front of the API server, and a kubeconfig that goes through it."""
    document = yaml.safe_load(namespace.kubeconfig.read_text())
    cluster = document["clusters"][0]["cluster"]
    host, _, port = cluster["server"].removeprefix("https://").partition(":")
    made = Proxy((host, int(port)))
    cluster["server"] = f"https://127.0.0.1:{made.port}"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    yield made, path
    made.stop()


def is_alive(operator: Operator) -> bool:
    return "cycle" in json.loads(operator.read(operator.probe_port, "/healthz"))


def test_watches_that_died_silently_are_noticed(
    namespace: Any, start: Callable[..., Operator], proxy: tuple[Proxy, Path]
) -> None:
    """Of nodes and of portfolios: changes of both are seen again, without a restart."""
    link, kubeconfig = proxy
    operator = start(kubeconfig=kubeconfig)
    site = Site(namespace)
    site.served()
    link.freeze()
    namespace.kubectl("annotate", "node", site.nodes[0], "slo.edgefolio.dev/latency-p95-ms=5")
    site.portfolio(objectives={"latencyP95Milliseconds": 21})
    end = time.monotonic() + 200

    def seen() -> bool:
        for number in range(2):
            site.report(number)
        told = [site.endpoint(number)["spec"]["objectives"].get("latencyP95Milliseconds") for number in range(2)]
        return told == [5, 21]

    wait_for(seen, seconds=max(1.0, end - time.monotonic()))
    wait_for(lambda: site.target(0) == "small")
    assert is_alive(operator)
    assert operator.end() == 0


def test_an_outage_is_survived_and_ended_well(
    namespace: Any, start: Callable[..., Operator], proxy: tuple[Proxy, Path]
) -> None:
    link, kubeconfig = proxy
    operator = start(kubeconfig=kubeconfig)
    site = Site(namespace)
    site.served()
    link.refuse(True)
    link.freeze()
    time.sleep(60)
    # Nothing can be done about it here: the process lives, and does not act.
    assert is_alive(operator)
    assert "edgefolio_leading 0.0" in operator.read(operator.metrics_port, "/metrics")
    link.refuse(False)
    site.report(0, slowdown=4.0)
    wait_for(lambda: site.target(0) == "small", seconds=120)
    assert site.target(1) == "dense"
    assert operator.end() == 0
