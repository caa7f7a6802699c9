"""Transfers that hang, drip, break or begin elsewhere: they end, can be stopped at any moment, and go on later."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from drafts import contents_of, publish_draft
from faulty_server import (
    Answer,
    Exchange,
    Fault,
    FaultyServer,
    cut_after,
    drip,
    faulty_server,
    files_of,
    hang,
    hang_after,
    in_front_of,
    only,
)

from edgefolio.errors import IntegrityError, TransientError
from edgefolio.manifest import sha256_of
from edgefolio.repository import Repository
from edgefolio.repository.fetching import fetch_verified
from edgefolio.repository.remote import calls
from edgefolio.repository.remote.calls import TransferStopped, interruptible
from edgefolio.repository.storage import Storage, open_storage

PATH = "models/digits/101/model.onnx"
CONTENT = contents_of("one", size=3000)["small"]


@pytest.fixture(params=["https", "s3"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A published repository; ``server.uri`` is where."""
    if request.param == "s3":
        uri: str = request.getfixturevalue("s3_uri")
        publish_draft(uri, tmp_path / "drafts")
        with faulty_server(in_front_of(request.getfixturevalue("s3_endpoint"))) as found:
            monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
            found.uri = uri  # type: ignore[attr-defined]
            yield found
        return
    publish_draft(str(tmp_path / "repository"), tmp_path / "drafts")
    with faulty_server(files_of(tmp_path / "repository")) as found:
        found.uri = found.url  # type: ignore[attr-defined]
        yield found


def storage_of(server: FaultyServer) -> Storage:
    return open_storage(server.uri, field="--repository")  # type: ignore[attr-defined]


def fetch(storage: Storage, folder: Path, *, may_go_on: object = lambda: True) -> bytes:
    path = fetch_verified(
        storage,
        PATH,
        folder / "model.onnx",
        sha256=sha256_of(CONTENT),
        size_bytes=len(CONTENT),
        may_go_on=may_go_on,  # type: ignore[arg-type]
    )
    return path.read_bytes()


def partial(folder: Path) -> Path:
    return folder / f".model.onnx.{sha256_of(CONTENT)[:16]}.partial"


@contextlib.contextmanager
def running(call: object) -> Iterator[list[BaseException | None]]:
    """``call`` in a thread of its own; the list holds what it raised (``None``: nothing) once the block has ended."""
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            call()  # type: ignore[operator]
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join(timeout=60)
        assert not thread.is_alive()


@pytest.mark.parametrize("fault", [hang, hang_after(1000), drip(10, seconds=0.2)], ids=["hang", "half", "drip"])
def test_a_transfer_is_stopped_while_the_server_says_nothing(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(calls, "SILENT_SECONDS", 3600.0)
    for name in ("http_storage", "s3_storage"):
        monkeypatch.setattr(f"edgefolio.repository.remote.{name}.SILENT_SECONDS", 3600.0)
    storage, asked, go_on = storage_of(server), threading.Event(), threading.Event()
    go_on.set()

    def noticed(exchange: Exchange) -> bool:
        asked.set()
        return fault(exchange)

    server.fault = only(PATH, noticed)
    with running(lambda: fetch(storage, tmp_path, may_go_on=go_on.is_set)) as outcome:
        assert asked.wait(30)
        go_on.clear()
    assert isinstance(outcome[0], TransferStopped)
    server.fault = None
    assert fetch(storage, tmp_path) == CONTENT


@pytest.mark.parametrize("part", ["current.json", "1.json"])
def test_every_other_call_is_stopped_as_well(server: FaultyServer, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    for name in ("http_storage", "s3_storage"):
        monkeypatch.setattr(f"edgefolio.repository.remote.{name}.SILENT_SECONDS", 3600.0)
    repository, asked, go_on = Repository(storage_of(server)), threading.Event(), threading.Event()
    go_on.set()

    def noticed(exchange: Exchange) -> bool:
        asked.set()
        return hang(exchange)

    server.fault = only(part, noticed)

    def read() -> None:
        with interruptible(go_on.is_set):
            repository.current_manifest("digits")

    with running(read) as outcome:
        assert asked.wait(30)
        go_on.clear()
    assert isinstance(outcome[0], TransferStopped)


def test_silence_ends_a_transfer_and_what_came_is_kept(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "SILENT_SECONDS", 0.5)
    storage = storage_of(server)
    server.fault = only(PATH, hang_after(1000), times=1)
    server.seen.clear()
    # What came is a beginning: the rest is asked for at once.
    assert fetch(storage, tmp_path) == CONTENT
    assert [found for _, path, found in server.seen if PATH in path] == [None, "bytes=1000-"]
    (tmp_path / "model.onnx").unlink()
    server.fault = only(PATH, hang_after(0))
    with pytest.raises(TransientError, match="no data arrived"):
        fetch(storage, tmp_path)


def test_a_drip_is_given_up(server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SLOW_WINDOW_SECONDS", 0.3)
    monkeypatch.setattr("edgefolio.repository.fetching._ATTEMPTS", 1)
    storage = storage_of(server)
    server.fault = only(PATH, drip(5, seconds=0.1))
    with pytest.raises(TransientError, match=r"only \d+ bytes"):
        fetch(storage, tmp_path)
    kept = partial(tmp_path).read_bytes()
    assert kept
    assert CONTENT.startswith(kept)


def test_a_broken_transfer_goes_on_where_it_broke(server: FaultyServer, tmp_path: Path) -> None:
    storage = storage_of(server)
    server.fault = only(PATH, cut_after(1000, once=lambda: partial(tmp_path).stat().st_size == 1000), times=1)
    server.seen.clear()
    assert fetch(storage, tmp_path) == CONTENT
    assert [found for _, path, found in server.seen if PATH in path] == [None, "bytes=1000-"]


def test_a_transfer_that_always_breaks_is_given_up(server: FaultyServer, tmp_path: Path) -> None:
    storage = storage_of(server)
    asked = [0]

    def one_more(exchange: Exchange) -> bool:
        asked[0] += 1
        return cut_after(1, once=lambda: partial(tmp_path).stat().st_size == asked[0])(exchange)

    server.fault = only(PATH, one_more)
    with pytest.raises(TransientError):
        fetch(storage, tmp_path)
    assert 1 < asked[0] < 10
    assert CONTENT.startswith(partial(tmp_path).read_bytes())


def without_ranges(exchange: Exchange) -> bool:
    exchange.range = None
    del exchange.headers["Range"]
    return False


def other_range(exchange: Exchange) -> bool:
    if exchange.range is None:
        return False
    exchange.send(Answer(206, [("Content-Range", f"bytes 500-2999/{len(CONTENT)}")], CONTENT[500:]))
    return True


def whole_as_part(exchange: Exchange) -> bool:
    if exchange.range is None:
        return False
    exchange.send(Answer(206, [], CONTENT))
    return True


def refused_range(exchange: Exchange) -> bool:
    if exchange.range is None:
        return False
    exchange.send(Answer(416, [], b"<Error><Code>InvalidRange</Code></Error>"))
    return True


@pytest.mark.parametrize("fault", [without_ranges, other_range, whole_as_part, refused_range])
def test_a_server_that_gives_no_rest_gives_all_of_it(server: FaultyServer, tmp_path: Path, fault: Fault) -> None:
    storage = storage_of(server)
    partial(tmp_path).write_bytes(CONTENT[:1000])
    server.fault = only(PATH, fault)
    assert fetch(storage, tmp_path) == CONTENT
    assert not partial(tmp_path).exists()


def test_what_changed_in_between_is_fetched_anew_once(server: FaultyServer, tmp_path: Path) -> None:
    storage = storage_of(server)
    partial(tmp_path).write_bytes(b"x" * 1000)
    server.seen.clear()
    assert fetch(storage, tmp_path) == CONTENT
    (tmp_path / "model.onnx").unlink()
    partial(tmp_path).write_bytes(CONTENT[:1000])
    server.fault = only(PATH, lambda exchange: exchange.send(Answer(200, [], b"y" * len(CONTENT))) is None)
    server.seen.clear()
    with pytest.raises(IntegrityError, match="digest"):
        fetch(storage, tmp_path)
    assert len([path for _, path, _ in server.seen if PATH in path]) <= 3
    assert not partial(tmp_path).exists()


@pytest.mark.parametrize("kept", [CONTENT, CONTENT + b"more", b"z" * len(CONTENT)], ids=["whole", "longer", "other"])
def test_a_rest_as_long_as_the_file_is_compared(server: FaultyServer, tmp_path: Path, kept: bytes) -> None:
    storage = storage_of(server)
    partial(tmp_path).write_bytes(kept)
    assert fetch(storage, tmp_path) == CONTENT
