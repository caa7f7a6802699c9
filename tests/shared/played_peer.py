"""A peer that a test plays by hand: frames over a socket, right or wrong ones."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import replace
from typing import Any

import numpy as np
from working_sets import WorkingSet

from edgefolio_worker.protocol.expected import job_number
from edgefolio_worker.protocol.frames import HEADER_BYTES, Header, Kind, decode_header, encode_header, plan_number
from edgefolio_worker.protocol.handshake import PROTOCOL, Hello


def knocked(port: int) -> socket.socket:
    """A connection to a worker, which opens its port in its own time."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class PlayedPeer:
    """Worker 0 of two, as worker 1 sees it. It answers nothing by itself."""

    def __init__(self, site: WorkingSet, *, context: ssl.SSLContext | None = None) -> None:
        self.site = site
        self.socket = knocked(site.ports[1])
        if context is not None:
            self.socket = context.wrap_socket(self.socket)
        self.count = 10**6

    def __enter__(self) -> PlayedPeer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()

    def hello(self, **changes: Any) -> bytes:
        plan = self.site.split.plan
        hello = Hello(
            protocol=PROTOCOL,
            model="revealing",
            plan_sha256=plan.sha256,
            number=self.site.number,
            rank=0,
            workers=plan.workers,
            wire=plan.wire,
            max_samples=16,
        )
        return replace(hello, **changes).to_bytes()

    def header(self, kind: Kind, **fields: Any) -> Header:
        known = {"sender": 0, "plan": plan_number(self.site.split.plan.sha256), "number": self.site.number}
        return Header(**{"kind": kind, **known, **fields})

    def send(self, kind: Kind, payload: bytes = b"", **fields: Any) -> None:
        self.socket.sendall(encode_header(self.header(kind, payload_bytes=len(payload), **fields)) + payload)

    def receive(self) -> tuple[Header, bytes]:
        """The next frame. Raises EOFError where the other side ended the connection."""
        header = decode_header(self._exactly(HEADER_BYTES))
        return header, self._exactly(header.payload_bytes)

    def receive_of(self, *kinds: Kind) -> tuple[Header, bytes]:
        """The next frame of these kinds."""
        while True:
            header, payload = self.receive()
            if header.kind in kinds:
                return header, payload

    def link(self) -> PlayedPeer:
        """Say HELLO as it should be."""
        self.send(Kind.HELLO, self.hello())
        assert self.receive()[0].kind is Kind.WELCOME
        return self

    def begin(self, values: np.ndarray[Any, Any], *, samples: int | None = None) -> int:
        """Begin a job here."""
        self.count += 1
        job = job_number(0, self.count)
        self.send(Kind.INPUT, values.astype("<f4").tobytes(), job=job, samples=samples or len(values))
        return job

    def ends(self) -> bool:
        """Whether the other side ends the connection; what it sent before is read."""
        with contextlib.suppress(EOFError, ConnectionError, ssl.SSLError):
            while True:
                self.receive()
        return True

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self.socket.recv(size - len(found))
            if not piece:
                raise EOFError
            found += piece
        return found
