"""A small server that speaks the protocol of the Hugging Face Hub, as far as files of models are fetched."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Models by name with their files; ``requests`` are the paths that were asked for, ``status`` answers them all."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.status: int | None = None
        self.endpoint = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        self.requests.append(path)
        if self.status is not None:
            return self.status, {}, b""
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            known = "/".join(parts[2:4]) in self.models
            return (200, {}, json.dumps({"id": "m", "sha": COMMIT}).encode()) if known else (404, {}, b"")
        model, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if model not in self.models:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if revision != COMMIT:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        content = self.models[model].get(name)
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        digest = hashlib.sha256(content).hexdigest()
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"'}, content


@contextmanager
def served() -> Iterator[HubServer]:
    """The server on loopback."""
    hub = HubServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self, *, with_body: bool) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def do_GET(self) -> None:
            self._respond(with_body=True)

        def do_HEAD(self) -> None:
            self._respond(with_body=False)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
