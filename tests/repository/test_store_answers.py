"""What a store answers is told apart: missing, not allowed, passing trouble, other bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from drafts import publish_draft
from faulty_server import Answer, Exchange, FaultyServer, faulty_server, files_of, in_front_of, only, status

from edgefolio.errors import IntegrityError, TransientError, UserError
from edgefolio.repository import Repository

VARIANT, MANIFEST, POINTER = "101/model.onnx", "1.json", "current.json"


@dataclass(frozen=True)
class Store:
    """A published repository behind a server that can be made to fail."""

    server: FaultyServer
    uri: str
    is_s3: bool

    def fail(self, part: str, code: int, s3_code: str = "", **options: object) -> None:
        document = (s3_code or "Whatever") if self.is_s3 else None
        self.server.fault = only(part, status(code, document, **options))  # type: ignore[arg-type]


@pytest.fixture(params=["https", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr("edgefolio.repository.remote.s3_storage._CONFIGURATION", {"retries": {"total_max_attempts": 1}})
    if request.param == "s3":
        uri: str = request.getfixturevalue("s3_uri")
        publish_draft(uri, tmp_path / "drafts")
        with faulty_server(in_front_of(request.getfixturevalue("s3_endpoint"))) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            yield Store(server, uri, is_s3=True)
        return
    publish_draft(str(tmp_path / "repository"), tmp_path / "drafts")
    with faulty_server(files_of(tmp_path / "repository")) as server:
        yield Store(server, server.url, is_s3=False)


def fetch(repository: Repository, folder: Path) -> Path:
    _, manifest = repository.current_manifest("digits")
    return repository.fetch(manifest, manifest.variants[0], folder / "model.onnx")


def test_trouble_of_the_server_passes(store: Store, tmp_path: Path) -> None:
    repository = Repository.open(store.uri)
    for code in (408, 425, 429, 500, 502, 503, 504, 599):
        for part in (VARIANT, MANIFEST, POINTER):
            store.fail(part, code)
            with pytest.raises(TransientError, match=str(code)) as caught:
                fetch(repository, tmp_path)
            assert "missing" not in str(caught.value)
            assert "published" not in str(caught.value)
    store.server.fault = None
    assert fetch(repository, tmp_path).is_file()


def test_what_is_not_allowed_is_about_credentials(store: Store, tmp_path: Path) -> None:
    repository = Repository.open(store.uri)
    for code in (401, 403):
        for part in (VARIANT, MANIFEST, POINTER):
            store.fail(part, code, "AccessDenied")
            with pytest.raises(UserError, match=r"refuses access.*[cC]heck .*credentials") as caught:
                fetch(repository, tmp_path)
            assert not isinstance(caught.value, TransientError)
            assert "nothing is published" not in str(caught.value)


def test_only_what_is_missing_is_missing(store: Store, tmp_path: Path) -> None:
    repository = Repository.open(store.uri)
    for code in (404, 410):
        store.fail(VARIANT, code, "NoSuchKey")
        with pytest.raises(IntegrityError, match="missing"):
            fetch(repository, tmp_path)
        store.fail(POINTER, code, "NoSuchKey")
        with pytest.raises(UserError, match="nothing is published"):
            fetch(repository, tmp_path)
        store.fail(MANIFEST, code, "NoSuchKey")
        with pytest.raises(UserError, match="no revision 1"):
            fetch(repository, tmp_path)


def test_other_refusals_name_the_status(store: Store, tmp_path: Path) -> None:
    repository = Repository.open(store.uri)
    for code in (400, 405, 418):
        store.fail(VARIANT, code)
        with pytest.raises(UserError, match=str(code)) as caught:
            fetch(repository, tmp_path)
        assert not isinstance(caught.value, TransientError)


def test_a_broken_connection_passes(store: Store, tmp_path: Path) -> None:
    def cut(exchange: Exchange) -> bool:
        exchange.cut()
        return True

    store.server.fault = only(VARIANT, cut)
    with pytest.raises(TransientError):
        fetch(Repository.open(store.uri), tmp_path)


def test_other_bytes_are_refused_by_digest(store: Store, tmp_path: Path) -> None:
    def other(exchange: Exchange) -> bool:
        answer = exchange.normal()
        kept = [(name, value) for name, value in answer.headers if "checksum" not in name.lower()]
        exchange.send(Answer(answer.status, kept, bytes([answer.body[0] ^ 1]) + answer.body[1:]))
        return True

    for part in (VARIANT, MANIFEST):
        store.server.fault = only(part, other)
        with pytest.raises(IntegrityError, match="digest"):
            fetch(Repository.open(store.uri), tmp_path)
    assert not list(tmp_path.glob("*model.onnx*"))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[FaultyServer]:
    publish_draft(str(tmp_path / "repository"), tmp_path / "drafts")
    with faulty_server(files_of(tmp_path / "repository")) as server:
        yield server


PAGE = b"\n<!DOCTYPE html><title>Log in</title>"


@pytest.mark.parametrize("part", [VARIANT, MANIFEST, POINTER])
@pytest.mark.parametrize("headers", [[("Content-Type", "text/html; charset=utf-8")], []])
def test_the_page_of_a_login_is_no_damaged_file(
    web: FaultyServer, tmp_path: Path, part: str, headers: list[tuple[str, str]]
) -> None:
    web.fault = only(part, lambda exchange: exchange.send(Answer(200, headers, PAGE)) is None)
    with pytest.raises(TransientError, match="web page"):
        fetch(Repository.open(web.url), tmp_path)


def test_what_a_server_calls_html_is_taken_if_its_bytes_are_right(web: FaultyServer, tmp_path: Path) -> None:
    def misnamed(exchange: Exchange) -> bool:
        exchange.send(Answer(200, [("Content-Type", "text/html")], exchange.normal().body))
        return True

    web.fault = misnamed
    assert fetch(Repository.open(web.url), tmp_path).is_file()


def redirecting(to: Callable[[str], str]) -> Callable[[Exchange], bool]:
    def fault(exchange: Exchange) -> bool:
        if exchange.path.startswith("/moved"):
            return False
        exchange.send(Answer(302, [("Location", to(exchange.path))]))
        return True

    return fault


def test_a_redirect_is_followed_and_a_loop_is_not(web: FaultyServer, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "repository", tmp_path / "repository" / "moved")
    web.fault = redirecting(lambda path: f"/moved{path}")
    assert fetch(Repository.open(web.url), tmp_path).is_file()
    web.fault = redirecting(lambda path: path)
    web.seen.clear()
    with pytest.raises(TransientError, match="redirects more than"):
        Repository.open(web.url).current("digits")
    assert len(web.seen) <= 10
    for place in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        web.fault = redirecting(lambda _, place=place: place)  # type: ignore[misc]
        with pytest.raises(TransientError, match="not followed"):
            Repository.open(web.url).current("digits")


def test_a_compressed_answer_is_not_unpacked(web: FaultyServer) -> None:
    import gzip

    def bomb(exchange: Exchange) -> bool:
        exchange.send(Answer(200, [("Content-Encoding", "gzip")], gzip.compress(b"\0" * 50_000_000)))
        return True

    web.fault = only(POINTER, bomb)
    with pytest.raises(IntegrityError):
        Repository.open(web.url).current("digits")


def test_a_server_without_listings_is_read_by_name(tmp_path: Path) -> None:
    publish_draft(str(tmp_path / "repository"), tmp_path / "drafts")
    with faulty_server(files_of(tmp_path / "repository", listings=False)) as server:
        assert fetch(Repository.open(server.url), tmp_path).is_file()
        with pytest.raises(UserError, match="nothing is published"):
            Repository.open(server.url).current_manifest("other")
        with pytest.raises(UserError, match="no revision 7"):
            Repository.open(server.url).manifest("digits", 7)


def test_listings_are_read_where_there_are_some(web: FaultyServer) -> None:
    repository = Repository.open(web.url)
    assert repository.models() == ("digits",)
    assert repository.revisions("digits") == (1,)
    assert repository.storage.names("models/digits") == ("101", "102")


def test_no_credentials_go_over_plain_text(web: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFOLIO_NETRC", "machine 127.0.0.1 login me password s3cr3t")
    sent: list[str | None] = []
    web.fault = lambda exchange: sent.append(exchange.headers.get("Authorization")) is not None
    assert Repository.open(web.url).current("digits") is not None
    assert sent == [None]


def test_damage_that_the_store_itself_finds_is_no_outage(store: Store, tmp_path: Path) -> None:
    """S3 keeps checksums of its own: its client notices damage before the digest of the manifest is compared."""
    if not store.is_s3:
        pytest.skip("web servers keep no checksums")

    def damaged(exchange: Exchange) -> bool:
        answer = exchange.normal()
        exchange.send(Answer(answer.status, answer.headers, bytes([answer.body[0] ^ 1]) + answer.body[1:]))
        return True

    store.server.fault = only(POINTER, damaged)
    with pytest.raises(IntegrityError, match="not the bytes that were written"):
        fetch(Repository.open(store.uri), tmp_path)


def test_the_codes_of_s3(s3_uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefolio.repository.remote.s3_storage._CONFIGURATION", {"retries": {"total_max_attempts": 1}})
    with faulty_server(in_front_of(s3_endpoint)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        repository = Repository.open(s3_uri)
        for code, s3_code, kind, words in (
            (403, "InvalidAccessKeyId", UserError, "refuses access"),
            (403, "SignatureDoesNotMatch", UserError, "refuses access"),
            (400, "ExpiredToken", UserError, "refuses access"),
            (403, "RequestTimeTooSkewed", TransientError, "clock"),
            (503, "SlowDown", TransientError, "SlowDown"),
            (400, "RequestTimeout", TransientError, "RequestTimeout"),
            (500, "InternalError", TransientError, "InternalError"),
            (404, "NoSuchBucket", UserError, "no bucket"),
            (403, "AccessDenied", UserError, r"s3:GetObject"),
        ):
            server.fault = status(code, s3_code)
            with pytest.raises(kind, match=words) as caught:
                repository.current("digits")
            assert isinstance(caught.value, TransientError) == (kind is TransientError)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("endless", ["same token", "names"])
def test_a_listing_that_never_ends_is_given_up(
    endless: str, s3_uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def listing(exchange: Exchange) -> bool:
        nonlocal asked
        if "list-type=2" not in exchange.handler.path:
            return False
        asked += 1
        token = "t" if endless == "same token" else f"t{asked}"
        key = f"portfolios/revisions/{asked}" + "x" * 900
        entries = f"<Contents><Key>{key}</Key></Contents>" * (1 if endless == "same token" else 1000)
        text = (
            f"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
            f"{entries}</ListBucketResult>"
        )
        exchange.send(Answer(status=200, headers=[("Content-Type", "application/xml")], body=text.encode()))
        return True

    with faulty_server(in_front_of(s3_endpoint)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        storage = Repository.open(s3_uri).storage
        server.fault = listing
        with pytest.raises(UserError, match="has no end, or too many names"):
            storage.names("revisions")
    assert asked < 50
