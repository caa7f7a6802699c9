"""A web server that answers anything at all: nothing but a plain error comes of it, and no byte that is not right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from drafts import contents_of, publish_draft
from faulty_server import Exchange, FaultyServer, faulty_server, files_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgefolio.errors import EdgefolioError
from edgefolio.manifest import sha256_of
from edgefolio.repository import Repository
from edgefolio.repository.fetching import fetch_verified

CONTENT = contents_of("one")["small"]
PATH = "models/digits/101/model.onnx"
FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

NAMES = st.sampled_from(
    ["Content-Range", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Location", "ETag",
     "Retry-After", "Set-Cookie", "WWW-Authenticate", "Connection", "Upgrade"]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        ["bytes 1000-3007/3008", "bytes 0-0/1", "bytes 1000-2/3", "0", "-1", "999999999999999999999", "chunked", "gzip",
         "deflate, br", "text/html", "http://[", "//", "file:///etc/passwd", "ftp://x/", "close", "h2c", "Basic"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20),
)  # fmt: skip
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
BODIES = st.one_of(st.binary(max_size=100), st.just(CONTENT), st.just(CONTENT[1000:]), st.just(CONTENT + b"x"))
STATUSES = st.one_of(st.sampled_from([200, 204, 206, 301, 302, 304, 401, 403, 404, 416, 429, 503]), st.integers(0, 999))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    folder = tmp_path_factory.mktemp("web")
    publish_draft(str(folder / "repository"), folder / "drafts")
    with faulty_server(files_of(folder / "repository")) as found:
        yield found


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("calls", "http_storage"):
        monkeypatch.setattr(f"edgefolio.repository.remote.{module}.SILENT_SECONDS", 0.5)
    monkeypatch.setattr("edgefolio.repository.remote.http_storage.CONNECT_SECONDS", 0.5)
    monkeypatch.setattr("edgefolio.repository.fetching._SECONDS_BETWEEN_ATTEMPTS", 0.0)


def sends(raw: bytes) -> object:
    def fault(exchange: Exchange) -> bool:
        exchange.handler.wfile.write(raw)
        exchange.handler.wfile.flush()
        exchange.cut()
        return True

    return fault


def answer(status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def is_harmless(server: FaultyServer, raw: bytes, folder: Path, *, kept: int) -> None:
    server.fault = sends(raw)  # type: ignore[assignment]
    repository = Repository.open(server.url)
    for read in (
        lambda: repository.current("digits"),
        lambda: repository.current_manifest("digits"),
        lambda: repository.storage.names("models/digits"),
    ):
        with contextlib.suppress(EdgefolioError):
            read()
    place = folder / "model.onnx"
    partial = folder / f".model.onnx.{sha256_of(CONTENT)[:16]}.partial"
    partial.write_bytes(CONTENT[:kept])
    place.unlink(missing_ok=True)
    try:
        fetch_verified(repository.storage, PATH, place, sha256=sha256_of(CONTENT), size_bytes=len(CONTENT))
    except EdgefolioError:
        assert not place.exists()
    else:
        assert place.read_bytes() == CONTENT


@FUZZ
@given(status=STATUSES, headers=HEADERS, body=BODIES, kept=st.sampled_from([0, 1000]))
@example(status=206, headers=[("Content-Range", "bytes 1000-3007/3008")], body=CONTENT, kept=1000)
@example(status=200, headers=[("Content-Length", "3")], body=CONTENT, kept=0)
@example(status=302, headers=[("Location", "http://[")], body=b"", kept=0)
def test_any_answer(
    server: FaultyServer, tmp_path: Path, status: int, headers: list[tuple[str, str]], body: bytes, kept: int
) -> None:
    is_harmless(server, answer(status, headers, body), tmp_path, kept=kept)


@FUZZ
@given(raw=st.binary(max_size=200), kept=st.sampled_from([0, 1000]))
@example(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n", kept=0)
@example(raw=b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000 + b"\r\n", kept=0)
def test_any_bytes(server: FaultyServer, tmp_path: Path, raw: bytes, kept: int) -> None:
    is_harmless(server, raw, tmp_path, kept=kept)


@pytest.mark.parametrize("part", ["<a ", "<a href", "<a href=", "<a href='", '<a\thref = "x', "<a href='x?"])
def test_a_listing_of_tags_that_never_end_is_searched_once(server: FaultyServer, part: str) -> None:
    # In the square of its length, the search would take days, and every thread would wait for it.
    page = answer(200, [("Content-Type", "text/html")], part.encode() * ((4 << 20) // len(part)))
    server.fault = sends(page)  # type: ignore[assignment]
    names = Repository.open(server.url).storage.names("models/digits")
    assert len(names) <= 1
