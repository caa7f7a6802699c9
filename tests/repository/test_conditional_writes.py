"""Conditional writes as stores answer them, kept or not: no publication is ever undone by another, silently."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from faulty_server import Answer, Exchange, Fault, FaultyServer, faulty_server, in_front_of, only, status

from edgefolio.errors import TransientError, UserError
from edgefolio.repository import Publication, Repository
from edgefolio.repository.remote import s3_storage
from edgefolio.repository.storage import Storage, open_storage

IF_NONE_MATCH, IF_MATCH = "If-None-Match", "If-Match"


@pytest.fixture
def server(s3_uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    with faulty_server(in_front_of(s3_endpoint)) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        monkeypatch.setattr(s3_storage, "_KEEPS_CONDITIONS", set())
        yield found


@pytest.fixture
def storage(server: FaultyServer, s3_uri: str) -> Storage:
    return open_storage(s3_uri, field="--repository", create=True)


def writes(header: str, fault: Fault, *, times: int | None = None) -> Fault:
    """``fault`` for writes under this condition."""
    left = [times]

    def at(exchange: Exchange) -> bool:
        if exchange.method != "PUT" or exchange.headers.get(header) is None or left[0] == 0:
            return False
        if left[0] is not None:
            left[0] -= 1
        return fault(exchange)

    return at


def ignoring(*headers: str) -> Fault:
    """A store from before conditional writes: it drops what it does not know."""

    def fault(exchange: Exchange) -> bool:
        for header in headers:
            del exchange.headers[header]
        return False

    return fault


def objects(storage: Storage) -> tuple[str, ...]:
    found = storage._file_system.find(storage._bucket)  # type: ignore[attr-defined]
    return tuple(str(name) for name in found)


def test_a_store_that_keeps_conditions_is_asked_once(server: FaultyServer, s3_uri: str) -> None:
    storage = open_storage(s3_uri, field="--repository", create=True)
    assert objects(storage) == ()
    server.seen.clear()
    open_storage(s3_uri, field="--repository", create=True)
    assert [method for method, _, _ in server.seen] == ["HEAD"]
    # Reading asks for no right to write.
    server.seen.clear()
    Repository.open(s3_uri)
    assert {method for method, _, _ in server.seen} == {"HEAD"}


@pytest.mark.parametrize(
    "fault",
    [
        ignoring(IF_NONE_MATCH),
        ignoring(IF_MATCH),
        ignoring(IF_NONE_MATCH, IF_MATCH),
        writes(IF_NONE_MATCH, status(501, "NotImplemented")),
        writes(IF_MATCH, status(501, "NotImplemented")),
        writes(IF_NONE_MATCH, status(400, "InvalidArgument")),
        writes(IF_NONE_MATCH, status(404, "NoSuchKey")),
        writes(IF_MATCH, status(404, "NoSuchKey")),
    ],
    ids=["no-none", "no-match", "neither", "501-none", "501-match", "400-none", "404-none", "404-match"],
)
def test_a_store_without_conditions_is_refused_before_anything_is_published(
    server: FaultyServer, s3_uri: str, fault: Fault
) -> None:
    server.fault = fault
    with pytest.raises(UserError, match=r"no conditional writes.*Use a store that has them") as caught:
        Publication.check(s3_uri, field="spec.repository.uri")
    assert caught.value.field == "spec.repository.uri"
    assert not isinstance(caught.value, TransientError)
    server.fault = None
    assert objects(open_storage(s3_uri, field="--repository")) == ()


@pytest.mark.parametrize(("code", "s3_code"), [(412, "PreconditionFailed"), (304, ""), (412, "")])
def test_what_is_there_is_not_created_again(server: FaultyServer, storage: Storage, code: int, s3_code: str) -> None:
    assert storage.create("x", b"1")
    server.fault = writes(IF_NONE_MATCH, status(code, s3_code or None, body=b""))
    assert not storage.create("x", b"2")
    assert storage.read("x", maximum_bytes=10) == b"1"


@pytest.mark.parametrize("s3_code", ["ConditionalRequestConflict", "OperationAborted"])
def test_a_conflict_is_tried_again(server: FaultyServer, storage: Storage, s3_code: str) -> None:
    for header, write in (
        (IF_NONE_MATCH, lambda: storage.create("x", b"1")),
        (IF_MATCH, lambda: storage.update("x", lambda _: b"2")),
    ):
        server.fault = writes(header, status(409, s3_code), times=2)
        assert write()
    assert storage.read("x", maximum_bytes=10) == b"2"


def test_a_conflict_without_end_is_said(
    server: FaultyServer, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_storage, "_ATTEMPTS_TO_UPDATE", 3)
    server.fault = writes(IF_NONE_MATCH, status(409, "ConditionalRequestConflict"))
    with pytest.raises(TransientError, match="others change it"):
        storage.create("x", b"1")
    assert storage.read("x", maximum_bytes=10) is None


@pytest.mark.parametrize(("code", "s3_code"), [(412, "PreconditionFailed"), (404, "NoSuchKey"), (304, "")])
def test_what_changed_in_between_is_read_again(server: FaultyServer, storage: Storage, code: int, s3_code: str) -> None:
    storage.write("x", b"1")
    seen: list[bytes | None] = []

    def change(found: bytes | None) -> bytes:
        seen.append(found)
        return (found or b"") + b"+"

    def overtaken(exchange: Exchange) -> bool:
        exchange.server.fault = None
        storage.write("x", b"2")
        return status(code, s3_code or None, body=b"")(exchange)

    server.fault = writes(IF_MATCH, overtaken)
    assert storage.update("x", change) == b"2+"
    assert seen == [b"1", b"2"]


def test_no_update_is_lost(server: FaultyServer, storage: Storage, s3_uri: str) -> None:
    def add(mark: str) -> None:
        own = open_storage(s3_uri, field="--repository")
        for _ in range(5):
            own.update("marks", lambda found: (found or b"") + mark.encode())

    threads = [threading.Thread(target=add, args=(mark,)) for mark in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((storage.read("marks", maximum_bytes=100) or b"").decode()) == sorted("abc" * 5)


def test_a_write_whose_answer_was_lost_is_not_done_twice(server: FaultyServer, storage: Storage) -> None:
    """The client tries again by itself, and finds its own write."""

    def lost(exchange: Exchange) -> bool:
        exchange.normal()
        exchange.cut()
        return True

    storage.write("x", b"1")
    server.fault = writes(IF_MATCH, lost, times=1)
    assert storage.update("x", lambda found: b"2" if found == b"1" else found) == b"2"


@pytest.mark.parametrize(("method", "right"), [("PUT", "s3:PutObject"), ("GET", "s3:GetObject")], ids=["put", "get"])
def test_a_missing_right_is_named_before_the_work(server: FaultyServer, s3_uri: str, method: str, right: str) -> None:
    def refused(exchange: Exchange) -> bool:
        return exchange.method == method and status(403, "AccessDenied")(exchange)

    server.fault = refused
    with pytest.raises(UserError, match=right):
        Publication.check(s3_uri)


def test_publishing_names_the_right_to_list(server: FaultyServer, s3_uri: str, make_draft: object) -> None:
    draft = make_draft()  # type: ignore[operator]

    def refused(exchange: Exchange) -> bool:
        listing = exchange.method == "GET" and "list-type=2" in exchange.handler.path
        return (listing or exchange.method == "HEAD") and status(403, "AccessDenied")(exchange)

    server.fault = refused
    with pytest.raises(UserError, match="s3:ListBucket"):
        Publication.open(s3_uri).publish(draft.manifest, draft.files, history_limit=3)
    server.fault = None
    Publication.open(s3_uri).publish(draft.manifest, draft.files, history_limit=3)
    # Reading needs no list, and says in one line what a wrong prefix looks like to such a key.
    server.fault = refused
    assert Repository.open(s3_uri).current_manifest("digits")[1].revision == 1
    server.fault = lambda exchange: refused(exchange) or only("wrong", status(403, "AccessDenied"))(exchange)
    with pytest.raises(UserError, match=r"a missing object looks the same.*Check bucket, prefix") as caught:
        Repository.open(s3_uri + "/wrong").current_manifest("digits")
    assert "\n" not in caught.value.one_line()


def test_scratch_objects_that_could_not_be_removed_are_nobodys_entries(server: FaultyServer, s3_uri: str) -> None:
    def refused(exchange: Exchange) -> bool:
        return exchange.method == "DELETE" and status(403, "AccessDenied")(exchange)

    server.fault = refused
    storage = open_storage(s3_uri, field="--repository", create=True)
    assert len(objects(storage)) == 1
    assert storage.names("") == ()


def test_an_answer_that_is_no_xml_is_trouble_of_the_store(server: FaultyServer, storage: Storage) -> None:
    def page(exchange: Exchange) -> bool:
        exchange.send(Answer(200, [("Content-Type", "text/html")], b"<html>maintenance</html"))
        return True

    server.fault = page
    with pytest.raises(TransientError):
        storage.names("")
