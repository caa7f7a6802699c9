"""An API server of Kubernetes on a real socket that misbehaves as a test says: lists, watches, TLS, tokens."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from edgefolio.kubernetes.access import Access, Credentials

Object = dict[str, Any]
Watches = Literal["well", "gone", "gone event", "ends", "silent", "forbidden", "broken"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request: ``verb`` is get, list or watch, or the method."""

    at: float
    verb: str
    path: str


class FakeApiServer:
    """Objects by path of their collection; use it as a context. ``watches`` says how watches behave."""

    def __init__(self, *collections: str, certificate: tuple[Path, Path] | None = None) -> None:
        self.watches: Watches = "well"
        self.tokens: set[str] | None = None
        self.requests: list[Request] = []
        self.client_authority: Path | None = None
        self._objects: dict[str, dict[str, Object]] = {path: {} for path in collections}
        self._events: list[tuple[int, str, str, Object]] = []
        self._version = 100
        self._condition = threading.Condition()
        self._epoch = 0
        self._server = _Server(("127.0.0.1", 0), self)
        self._server.certificate = certificate
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        scheme = "http" if self._server.certificate is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def access(self) -> Access:
        """Access without TLS and token."""
        return Access(lambda: Credentials(server=self.url, namespace="models", tls=None, token=None))

    def __enter__(self) -> FakeApiServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer nothing any more."""
        self.cut()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, path: str, name: str, *, told: bool = True, **fields: Any) -> None:
        """Create or change an object; watches miss it where it is not ``told``."""
        with self._condition:
            known = name in self._objects[path]
            self._version += 1
            metadata = {"name": name, "namespace": "models", "uid": name, "generation": self._version}
            metadata["resourceVersion"] = str(self._version)
            thing = {"apiVersion": "v1", "kind": "Thing", "metadata": metadata, **fields}
            self._objects[path][name] = thing
            if told:
                self._events.append((self._version, "MODIFIED" if known else "ADDED", path, thing))
            self._condition.notify_all()

    def delete(self, path: str, name: str, *, told: bool = True) -> None:
        """Delete an object; watches miss it where it is not ``told``."""
        with self._condition:
            self._version += 1
            thing = self._objects[path].pop(name)
            metadata = {**thing["metadata"], "resourceVersion": str(self._version)}
            if told:
                self._events.append((self._version, "DELETED", path, {**thing, "metadata": metadata}))
            self._condition.notify_all()

    def restore(self, version: int) -> None:
        """As after a restore of etcd: the next change has a version just above ``version``."""
        with self._condition:
            self._version = version
            self._events.clear()

    def cut(self) -> None:
        """Close every connection that is open."""
        with self._condition:
            self._epoch += 1
            self._condition.notify_all()
        self._server.cut()

    def rotate(self, certificate: tuple[Path, Path]) -> None:
        """Show another certificate from now on, and close what is open."""
        self._server.certificate = certificate
        self.cut()

    def count(self, verb: str, path: str = "") -> int:
        """Requests of ``verb`` so far."""
        return sum(request.verb == verb and request.path.startswith(path) for request in self.requests)

    def answer(self, handler: _Handler) -> None:
        """Answer one request."""
        parts = urllib.parse.urlsplit(handler.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        collection, _, name = parts.path.rpartition("/")
        verb = handler.command
        if verb == "GET":
            verb = "watch" if "watch" in query else "list" if parts.path in self._objects else "get"
        self.requests.append(Request(at=time.monotonic(), verb=verb, path=parts.path))
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and token not in self.tokens:
            handler.refuse(401, "Unauthorized")
        elif verb == "watch":
            self._watch(handler, parts.path, query)
        elif verb == "list":
            with self._condition:
                items = list(self._objects[parts.path].values())
                version = str(self._version)
            handler.send(
                {"apiVersion": "v1", "kind": "ThingList", "metadata": {"resourceVersion": version}, "items": items}
            )
        elif verb == "get" and name in self._objects.get(collection, {}):
            handler.send(self._objects[collection][name])
        elif verb in ("PATCH", "POST"):
            handler.send(json.loads(handler.body()))
        else:
            handler.refuse(404, "NotFound")

    def _watch(self, handler: _Handler, path: str, query: dict[str, str]) -> None:
        if self.watches in ("gone", "forbidden", "broken"):
            status, reason = {"gone": (410, "Expired"), "forbidden": (403, "Forbidden"), "broken": (500, "Broken")}[
                self.watches
            ]
            handler.refuse(status, reason)
            return
        handler.begin_stream()
        if self.watches == "gone event":
            handler.stream({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})
        elif self.watches != "ends":
            self._stream(handler, path, query)
        handler.end_stream()

    def _stream(self, handler: _Handler, path: str, query: dict[str, str]) -> None:
        since, wanted = int(query["resourceVersion"]), query.get("fieldSelector", "").removeprefix("metadata.name=")
        end = time.monotonic() + int(query["timeoutSeconds"])
        epoch = self._epoch
        while time.monotonic() < end or self.watches == "silent":
            with self._condition:
                if self._epoch != epoch:
                    handler.close_connection = True
                    return
                fresh = [event for event in self._events if event[0] > since and event[2] == path]
                if not fresh or self.watches == "silent":
                    self._condition.wait(0.05)
            if self.watches == "silent":
                continue
            for number, kind, _, thing in fresh:
                since = number
                if wanted in ("", thing["metadata"]["name"]):
                    handler.stream({"type": kind, "object": thing})


class Account:
    """The mounted service account of a pod: links into a folder that is exchanged as a whole, as the kubelet does."""

    def __init__(self, folder: Path, server: FakeApiServer) -> None:
        self.folder = folder
        self._number = 0
        port = server.url.rpartition(":")[2]
        self.environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}

    def write(self, *, authority: Path, token: str) -> None:
        self._number += 1
        made = self.folder / f"..{self._number}"
        made.mkdir()
        shutil.copy(authority, made / "ca.crt")
        (made / "token").write_text(token)
        (made / "namespace").write_text("models")
        fresh = self.folder / "..fresh"
        fresh.symlink_to(made.name)
        fresh.rename(self.folder / "..data")
        for name in ("ca.crt", "token", "namespace"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")

    @property
    def access(self) -> Access:
        return Access.found(self.environment, account=self.folder)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a client opens many connections at once
    daemon_threads = True
    certificate: tuple[Path, Path] | None = None

    def __init__(self, address: tuple[str, int], fake: FakeApiServer) -> None:
        self.fake = fake
        self.open: set[Any] = set()
        super().__init__(address, _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            if self.certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.certificate)
                if self.fake.client_authority is not None:
                    context.verify_mode = ssl.CERT_REQUIRED
                    context.load_verify_locations(self.fake.client_authority)
                request = context.wrap_socket(request, server_side=True)
            self.open.add(request)
            super().process_request_thread(request, client_address)
        except OSError:
            request.close()
        finally:
            self.open.discard(request)

    def cut(self) -> None:
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what tests do."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.server.fake.answer(self)

    do_PATCH = do_POST = do_PUT = do_DELETE = do_GET

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def send(self, document: Object, status: int = 200) -> None:
        raw = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def refuse(self, status: int, reason: str) -> None:
        self.send({"kind": "Status", "code": status, "reason": reason, "message": f"{reason} by the test"}, status)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def stream(self, event: Object) -> None:
        line = json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def end_stream(self) -> None:
        if not self.close_connection:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests count requests."""


def make_authorities(folder: Path) -> Path:
    """``folder`` with two certificate authorities, ``old`` and ``new``, each with a certificate for 127.0.0.1."""
    folder.mkdir()
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("old", "new"):
        ca = f"{name}-ca"
        sign = ["openssl", "x509", "-req", "-days", "2", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial"]
        for command in (
            [*new, "-x509", "-days", "2", "-subj", f"/CN={ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.crt"],
            [*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"],
            [*sign, "-in", f"{name}.csr", "-extfile", "extensions", "-out", f"{name}.crt"],
        ):
            subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder
