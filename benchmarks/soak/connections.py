"""Record of the node that each client's connection leads to, from the kernel's table of connections."""

from __future__ import annotations

import bisect
import re
import subprocess
import threading
import time
from collections.abc import Sequence

_SECONDS = 0.5
#: A client's connection through the Service: who opened it, and which pod answers. The third number of an address of a
#: pod is that of its node in the tests' cluster.
_LED = re.compile(
    r"ESTABLISHED src=10\.244\.(?P<client>\d+)\.\d+ dst=10\.96\.\S+ sport=\d+ dport=8001 src=10\.244\.(?P<server>\d+)\."
)


class Connections:
    """Looks at the table twice a second while it is open."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self._numbers = {node: node.rpartition("-")[2] for node in nodes}
        self._seen: dict[str, list[tuple[float, frozenset[str]]]] = {node: [] for node in nodes}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="connections", daemon=True)

    def __enter__(self) -> Connections:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def led_to(self, node: str, at: float) -> frozenset[str]:
        """The nodes that this client's connections led to at the last look before ``at``; empty: unknown."""
        seen = self._seen[node]
        position = bisect.bisect_right(seen, at, key=lambda entry: entry[0])
        return seen[position - 1][1] if position else frozenset()

    def look(self) -> None:
        """Look once."""
        for node, number in self._numbers.items():
            command = ("ip", "netns", "exec", node, "conntrack", "-L", "-p", "tcp", "--orig-port-dst", "8001")
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            if found.returncode == 0:
                led = servers_of(found.stdout, number)
                self.note(node, time.time(), frozenset(name for name, of in self._numbers.items() if of in led))

    def note(self, node: str, at: float, led: frozenset[str]) -> None:
        """Note what was seen; what is as before takes no space."""
        seen = self._seen[node]
        if not seen or seen[-1][1] != led:
            seen.append((at, led))

    def _follow(self) -> None:
        while not self._stop.wait(_SECONDS):
            self.look()


def servers_of(table: str, client: str) -> frozenset[str]:
    """Numbers of the nodes whose pods answer the client on the node with this number."""
    return frozenset(match["server"] for match in _LED.finditer(table) if match["client"] == client)
