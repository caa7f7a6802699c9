"""What happens to the two nodes in turn: load, one killed, brought back, the link's rate cut and restored."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from demo.split import nodes
from demo.split.figures import Act
from demo.split.portfolio import Objective, Served, write_answers, write_set
from demo.split.process import Process
from demo.split.requests import Request, client_command, requests_in, wait_for_answer
from edgefolio_edge.peers.identity import make_identity

__all__ = ["Story", "Told"]

#: The link as tc writes it, and what it is cut to: a request then takes longer than any objective here.
RATE, CUT = "1gbit", "100kbit"
#: Seconds between an answer and the client's next request: the picture is of latency, not of throughput.
PAUSE_SECONDS = 0.01
#: At most until the split answers, at first and again after a fault.
HEALING_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came of it: times in seconds since the load began; ``counts`` by the worker's own metrics."""

    requests: tuple[Request, ...]
    acts: tuple[Act, ...]
    counts: Mapping[str, Mapping[str, int]]


@dataclass(kw_only=True)
class Story:
    """Two workers of a split, and one client of the first. ``seconds`` is how long each act lasts at least.

    ``folder`` holds whatever is written meanwhile; ``is_wired``: the nodes are namespaces with a wire.
    """

    folder: Path
    repository: Path
    served: Served
    objective: Objective
    is_wired: bool
    seconds: float
    progress: Callable[[str], None]
    _began: list[tuple[str, float, bool, bool]] = field(default_factory=list)

    def tell(self) -> Told:
        """Serve, ask, break, heal. Raises TimeoutError if a server or the split does not come."""
        tolerance = write_answers(self.repository, self.served, self.folder / "answers.npz")
        for rank in range(2):
            make_identity(self.folder / f"identity-{rank}")
        write_set(self.folder / "set.yaml", self.served, self.objective, addresses=self._addresses())
        (self.folder / "temporary").mkdir()
        can_cut = self._shape(RATE)
        with self._server(0) as first, self._second() as second:
            grpc = first.wait_for("serving")
            second.process.wait_for("serving")
            with self._client(grpc, tolerance) as client:
                self._act("both nodes", disturbs=False)
                self._heal("the split answers")
                self._act("one node killed", disturbs=True)
                second.kill()
                time.sleep(self.seconds)
                self._act("it comes back", disturbs=True)
                second.start()
                second.process.wait_for("serving")
                self._act("both nodes", disturbs=False)
                self._heal("the split answers again")
                if can_cut:
                    self._act(f"link at {CUT}", disturbs=True)
                    self._shape(CUT)
                    time.sleep(self.seconds)
                    self._act(f"link at {RATE}", disturbs=False)
                    self._shape(RATE)
                    self._heal("the split answers again")
                end = time.monotonic()
        if client.process.returncode:
            raise RuntimeError(f"the client ended with {client.process.returncode}: see {self.folder / 'client.log'}")
        return self._told(end)

    def _told(self, end: float) -> Told:
        start = self._began[0][1]
        requests = tuple(
            Request(each.sent - start, each.answered - start, each.by) for each in requests_in(self._lines)
        )
        # The last act holds whatever was still asked while the client was told to end.
        ends = [at for _, at, _, _ in self._began[1:]]
        last = max([end, *(each.sent + 1e-6 for each in requests_in(self._lines))])
        acts = tuple(
            Act(name=name, start=at - start, end=until - start, disturbs=disturbs, split_must_answer=must)
            for (name, at, disturbs, must), until in zip(self._began, [*ends, last], strict=True)
        )
        return Told(requests=requests, acts=acts, counts=json.loads(self._counts.read_text()))

    def _act(self, name: str, *, disturbs: bool) -> None:
        # Before the client's first request the first act begins.
        self._began.append((name, time.monotonic() if self._began else 0.0, disturbs, not disturbs))
        self.progress(name)

    def _heal(self, text: str) -> None:
        since = time.monotonic() if len(self._began) > 1 else 0.0
        at = wait_for_answer(self._lines, self.served.variant.name, since=since, seconds=HEALING_SECONDS)
        if len(self._began) == 1:
            # The clock of the story is that of the first request.
            name, _, disturbs, must = self._began[0]
            sent = min((each.sent for each in requests_in(self._lines)), default=time.monotonic())
            self._began[0] = (name, sent, disturbs, must)
            since = sent
        self.progress("the split does not answer" if at is None else f"{text} after {max(0.0, at - since):.1f} s")
        time.sleep(self.seconds)

    def _addresses(self) -> tuple[str, str]:
        if self.is_wired:
            return (f"{nodes.ADDRESSES[0]}:{nodes.PORT}", f"{nodes.ADDRESSES[1]}:{nodes.PORT}")
        with socket.socket() as first, socket.socket() as second:
            for each in (first, second):
                each.bind(("127.0.0.1", 0))
            return (f"127.0.0.1:{first.getsockname()[1]}", f"127.0.0.1:{second.getsockname()[1]}")

    def _shape(self, rate: str) -> bool:
        """Give the link a rate. Returns whether there is a link that takes one."""
        if not self.is_wired:
            return False
        try:
            for node in range(2):
                nodes.shape(node, rate)
        except subprocess.CalledProcessError as error:
            self.progress(f"the link's rate cannot be set, so it is not cut: {error.stderr.strip()}")
            return False
        return True

    def _server(self, node: int) -> Process:
        return nodes.serve(
            node,
            repository=self.repository,
            set_file=self.folder / "set.yaml",
            identity=self.folder / f"identity-{node}",
            variant=self.served.variant.name,
            cores=sorted(os.sched_getaffinity(0))[:2],
            model=self.served.manifest.model,
            is_wired=self.is_wired,
            log=self.folder / f"server-{node}.log",
            temporary=self.folder / "temporary",
        )

    @contextmanager
    def _second(self) -> Iterator[_Second]:
        second = _Second(self._server)
        try:
            second.start()
            yield second
        finally:
            second.stop()

    @contextmanager
    def _client(self, serving: Mapping[str, str], tolerance: float) -> Iterator[Process]:
        served = self.served
        command = client_command(
            serving["grpc"],
            self._lines,
            self.folder / "answers.npz",
            model=served.manifest.model,
            tensors=served.tensors,
            tolerance=tolerance,
        )
        command += ["--pause", str(PAUSE_SECONDS), "--metrics", serving["workerMetrics"], "--counts", str(self._counts)]
        prefix = nodes.inside(0) if self.is_wired else ()
        cores = sorted(os.sched_getaffinity(0))[:2]
        with Process(0, command, cores, prefix=prefix, log=self.folder / "client.log") as client:
            yield client

    @property
    def _lines(self) -> Path:
        return self.folder / "lines.txt"

    @property
    def _counts(self) -> Path:
        return self.folder / "counts.json"


class _Second:
    """The second node's server, which is killed and started anew."""

    def __init__(self, make: Callable[[int], Process]) -> None:
        self._make = make
        self.process = make(1)
        self._is_started = False

    def start(self) -> None:
        """Start a new one."""
        self.process = self._make(1)
        self.process.__enter__()
        self._is_started = True

    def kill(self) -> None:
        """Everything of it at once, as when a node loses its power."""
        self.process.send(signal.SIGKILL, everywhere=True)
        self.process.process.wait()

    def stop(self) -> None:
        """End it, if it runs."""
        if self._is_started:
            self.process.__exit__(None, None, None)
