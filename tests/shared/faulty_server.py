"""A web server on loopback that misbehaves on demand: over a folder, or in front of another server."""

from __future__ import annotations

import http.client
import http.server
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

Headers = list[tuple[str, str]]
_HOP_BY_HOP = {"transfer-encoding", "connection", "content-length", "date", "server"}


@dataclass(frozen=True)
class Answer:
    """Status, headers and body."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""


class Exchange:
    """One request, and the ways to answer it."""

    def __init__(self, handler: http.server.BaseHTTPRequestHandler, server: FaultyServer) -> None:
        self.handler, self.server = handler, server
        self.method, self.path = handler.command, urlsplit(handler.path).path
        self.range = handler.headers.get("Range")
        self.headers = handler.headers
        length = int(handler.headers.get("Content-Length") or 0)
        self.body = handler.rfile.read(length) if length else b""

    def normal(self) -> Answer:
        """What the server answers without a fault."""
        return self.server.behind(self)

    def send(self, answer: Answer, *, pace: Callable[[bytes], Iterator[bytes]] | None = None) -> None:
        """Send ``answer``, in the pieces that ``pace`` makes of its body."""
        self.handler.send_response(answer.status)
        for name, value in answer.headers:
            self.handler.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in answer.headers}:
            self.handler.send_header("Content-Length", str(len(answer.body)))
        self.handler.end_headers()
        if self.method == "HEAD":
            return
        for piece in pace(answer.body) if pace is not None else (answer.body,):
            self.handler.wfile.write(piece)
            self.handler.wfile.flush()

    def cut(self) -> None:
        """End the connection."""
        self.handler.close_connection = True
        self.handler.connection.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """Say nothing until the server closes."""
        self.server.closing.wait()
        self.handler.close_connection = True


Fault = Callable[[Exchange], bool]


class FaultyServer:
    """``behind`` answers, unless ``fault`` is set and has answered itself. ``seen`` lists method, path and range."""

    def __init__(self, behind: Callable[[Exchange], Answer], *, tls: ssl.SSLContext | None = None) -> None:
        self.behind, self.fault = behind, None
        self.fault: Fault | None
        self.seen: list[tuple[str, str, str | None]] = []
        self.closing = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                with suppress(OSError, ValueError):
                    super().handle()

            def _go(self) -> None:
                exchange = Exchange(self, outer)
                outer.seen.append((exchange.method, exchange.path, exchange.range))
                fault = outer.fault
                if fault is None or not fault(exchange):
                    exchange.send(exchange.normal())

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _go

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls is not None else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def faulty_server(behind: Callable[[Exchange], Answer], *, tls: ssl.SSLContext | None = None) -> Iterator[FaultyServer]:
    server = FaultyServer(behind, tls=tls)
    try:
        yield server
    finally:
        server.close()


def files_of(root: Path, *, ranges: bool = True, listings: bool = True) -> Callable[[Exchange], Answer]:
    """The files below ``root``, as a plain web server gives them."""

    def answer(exchange: Exchange) -> Answer:
        path = root / unquote(exchange.path).lstrip("/")
        if path.is_dir():
            if not listings:
                return Answer(403)
            links = "".join(
                f'<a href="{entry.name}{"/" if entry.is_dir() else ""}">x</a>' for entry in sorted(path.iterdir())
            )
            return Answer(200, [("Content-Type", "text/html")], f'<a href="../">up</a>{links}'.encode())
        if not path.is_file():
            return Answer(404)
        raw = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", exchange.range or "") if ranges else None
        if asked is None:
            return Answer(200, [("Content-Type", "application/octet-stream")], raw)
        start = int(asked[1])
        if start >= len(raw):
            return Answer(416, [("Content-Range", f"bytes */{len(raw)}")])
        return Answer(206, [("Content-Range", f"bytes {start}-{len(raw) - 1}/{len(raw)}")], raw[start:])

    return answer


def in_front_of(url: str) -> Callable[[Exchange], Answer]:
    """What the server at ``url`` answers."""
    port = int(url.rpartition(":")[2])

    def answer(exchange: Exchange) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(exchange.method, exchange.handler.path, exchange.body, dict(exchange.headers.items()))
            found = connection.getresponse()
            raw = found.read()
            headers = [(name, value) for name, value in found.getheaders() if name.lower() not in _HOP_BY_HOP]
            if exchange.method == "HEAD":
                headers.append(("Content-Length", found.getheader("Content-Length") or "0"))
            return Answer(found.status, headers, raw)
        finally:
            connection.close()

    return answer


def only(part: str, fault: Fault, *, times: int | None = None) -> Fault:
    """``fault`` for paths that hold ``part``, at most ``times`` times."""
    left = [times]

    def at(exchange: Exchange) -> bool:
        if part not in exchange.path or left[0] == 0:
            return False
        if left[0] is not None:
            left[0] -= 1
        return fault(exchange)

    return at


def status(code: int, s3_code: str | None = None, *, headers: Headers | None = None, body: bytes = b"no\n") -> Fault:
    """Answers ``code``, with S3's document where ``s3_code`` is given."""
    if s3_code is not None:
        body = f"<?xml version='1.0'?><Error><Code>{s3_code}</Code><Message>m</Message></Error>".encode()

    def fault(exchange: Exchange) -> bool:
        exchange.send(Answer(code, headers or [], body))
        return True

    return fault


def hang(exchange: Exchange) -> bool:
    """Takes the request and says nothing."""
    exchange.hang()
    return True


def hang_after(size: int) -> Fault:
    """Sends the head and ``size`` bytes, then nothing."""

    def fault(exchange: Exchange) -> bool:
        def pace(body: bytes) -> Iterator[bytes]:
            yield body[:size]
            exchange.hang()

        exchange.send(exchange.normal(), pace=pace)
        return True

    return fault


def drip(size: int, *, seconds: float) -> Fault:
    """Sends ``size`` bytes every ``seconds``."""

    def fault(exchange: Exchange) -> bool:
        def pace(body: bytes) -> Iterator[bytes]:
            for start in range(0, len(body), size):
                if exchange.server.closing.wait(seconds):
                    return
                yield body[start : start + size]

        exchange.send(exchange.normal(), pace=pace)
        return True

    return fault


def cut_after(size: int, *, once: Callable[[], bool] = lambda: True) -> Fault:
    """Sends the head and ``size`` bytes, and ends the connection ``once`` they have arrived."""

    def fault(exchange: Exchange) -> bool:
        def pace(body: bytes) -> Iterator[bytes]:
            yield body[:size]
            while not once() and not exchange.server.closing.wait(0.02):
                pass
            exchange.cut()

        exchange.send(exchange.normal(), pace=pace)
        return True

    return fault
