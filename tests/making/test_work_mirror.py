"""The copy of a work directory: nothing torn is believed, one writer at a time, a store that is away delays nothing."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_server import Exchange, faulty_server, hang, in_front_of
from work_mirrors import brought, content, objects, opened, write

from edgefolio.errors import TransientError, UserError
from edgefolio.repository.storage import open_storage
from edgefolio_pruner.work import background_sync
from edgefolio_pruner.work.background_sync import BackgroundSync
from edgefolio_pruner.work.mirror import SupersededError, WorkMirror


@pytest.fixture(params=["directory", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return str(tmp_path / "store")
    s3: str = request.getfixturevalue("s3_uri")
    return s3


def test_what_was_sent_is_brought_and_what_is_gone_goes(uri: str, tmp_path: Path) -> None:
    first = opened(uri, tmp_path / "a")
    assert first.take() == 0
    write(tmp_path / "a", one=b"1", train__levels__dense=b"2" * 100_000, same=b"1")
    first.send(everything=True)
    assert brought(uri, tmp_path / "b") == content(tmp_path / "a")
    second = opened(uri, tmp_path / "c")
    assert second.take() == 3
    (tmp_path / "c" / "one").unlink()
    write(tmp_path / "c", train__levels__dense=b"3", more=b"4")
    second.send(everything=True)
    assert brought(uri, tmp_path / "d") == {"same": b"1", "train/levels/dense": b"3", "more": b"4"}
    assert objects(uri) == {hashlib.sha256(raw).hexdigest() for raw in (b"1", b"3", b"4")}


def test_unfinished_files_locks_and_strange_names_stay_here(uri: str, tmp_path: Path) -> None:
    remote = opened(uri, tmp_path / "a")
    remote.take()
    write(tmp_path / "a", result=b"1")
    for name in (".result.0123.partial", "lock", "sub/.hidden", "with space"):
        (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(b"x")
    remote.send(everything=True)
    assert brought(uri, tmp_path / "b") == {"result": b"1"}


def test_a_file_that_was_just_written_waits(uri: str, tmp_path: Path) -> None:
    remote = opened(uri, tmp_path / "a")
    remote.take()
    write(tmp_path / "a", result=b"1")
    os.utime(tmp_path / "a" / "result", ns=(time.time_ns() + 10**9,) * 2)
    remote.send()
    assert brought(uri, tmp_path / "b") == {}


@pytest.mark.parametrize("damage", [b"", b"2" * 5000, b"1" * 4999, None])
def test_a_torn_object_is_as_good_as_none(uri: str, tmp_path: Path, damage: bytes | None) -> None:
    remote = opened(uri, tmp_path / "a")
    remote.take()
    write(tmp_path / "a", whole=b"whole", torn=b"1" * 5000)
    remote.send(everything=True)
    storage, path = open_storage(uri, field="uri"), f"main/objects/{hashlib.sha256(b'1' * 5000).hexdigest()}"
    storage.delete(path) if damage is None else storage.write(path, damage)
    again = opened(uri, tmp_path / "b")
    again.take()
    assert content(tmp_path / "b") == {"whole": b"whole"}
    # Made again it is sent again.
    write(tmp_path / "b", torn=b"1" * 5000)
    again.send(everything=True)
    assert brought(uri, tmp_path / "c") == {"whole": b"whole", "torn": b"1" * 5000}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'{"format":2,"owner":"x","files":{}}',
        *(
            json.dumps({"format": 1, "owner": "x", "files": {name: {"sha256": "0" * 64, "size": 1}}}).encode()
            for name in ("../escaped", "/etc/passwd", "a/../../b", "a//b", ".hidden", "a/.b", "")
        ),
    ],
)
def test_an_index_that_is_none_is_begun_anew(tmp_path: Path, raw: bytes) -> None:
    uri = str(tmp_path / "store")
    open_storage(uri, field="uri", create=True).write("main/index.json", raw)
    remote = opened(uri, tmp_path / "a")
    assert remote.take() == 0
    write(tmp_path / "a", result=b"1")
    remote.send(everything=True)
    assert brought(uri, tmp_path / "b") == {"result": b"1"}


def test_a_run_that_was_taken_over_changes_nothing_any_more(uri: str, tmp_path: Path) -> None:
    lost = opened(uri, tmp_path / "lost")
    lost.take()
    write(tmp_path / "lost", one=b"1")
    lost.send(everything=True)
    following = opened(uri, tmp_path / "following")
    assert following.take() == 1
    write(tmp_path / "lost", one=b"lost", two=b"lost")
    with pytest.raises(SupersededError):
        lost.send(everything=True)
    write(tmp_path / "following", two=b"2")
    following.send(everything=True)
    with pytest.raises(SupersededError):
        lost.send(everything=True)
    assert brought(uri, tmp_path / "b") == {"one": b"1", "two": b"2"}


def test_other_slots_are_read_and_then_forgotten(uri: str, tmp_path: Path) -> None:
    pieces = {}
    for slot in ("oneshot-50", "training"):
        pieces[slot] = opened(uri, tmp_path / slot, slot=slot)
        pieces[slot].take()
        write(tmp_path / slot, **{"both": b"same", slot: slot.encode()})
        pieces[slot].send(everything=True)
    main = opened(uri, tmp_path / "main")
    main.agreed_threads(2)
    assert main.other_slots() == ("oneshot-50", "training")
    assert main.take(others=("oneshot-50", "training", "absent")) == 3
    assert content(tmp_path / "main") == {"both": b"same", "oneshot-50": b"oneshot-50", "training": b"training"}
    main.send(everything=True)
    main.forget(("oneshot-50", "training", "absent"))
    assert objects(uri, "training") == set()
    with pytest.raises(SupersededError):
        pieces["training"].send()
    assert len(brought(uri, tmp_path / "again")) == 3


def test_threads_are_those_of_the_first_run(uri: str, tmp_path: Path) -> None:
    assert opened(uri, tmp_path / "a").agreed_threads(4) == 4
    assert opened(uri, tmp_path / "b").agreed_threads(8) == 4
    open_storage(uri, field="uri").write("threads.json", b"{")
    assert opened(uri, tmp_path / "c").agreed_threads(8) == 8


class UnreachableStorage:
    """A store that does not answer."""

    uri = field = "s3://nowhere"
    can_publish = True

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fail(*_: object, **__: object) -> None:
            raise TransientError("the store cannot be reached.", field="uri", remedy="Wait.")

        return fail


def test_a_store_that_does_not_answer_holds_up_no_work_but_its_end(tmp_path: Path) -> None:
    remote = WorkMirror(UnreachableStorage(), tmp_path)  # type: ignore[arg-type]
    stages = []

    def work(fault: Exception | None) -> None:
        with BackgroundSync(remote, seconds=0.01) as sync:
            watching = sync.watching(lambda *, stage, fraction, message: stages.append(stage))
            for stage in ("training", "profile"):
                time.sleep(0.05)
                watching(stage=stage, fraction=0.5, message="")
            if fault is not None:
                raise fault
            stages.append("end")

    with pytest.raises(UserError):
        work(None)
    assert stages == ["training", "profile", "end"]
    with pytest.raises(ZeroDivisionError):
        work(ZeroDivisionError())  # what ended the work is what is told


def test_work_is_copied_while_it_goes_on_and_ends_when_it_is_taken_over(uri: str, tmp_path: Path) -> None:
    remote = opened(uri, tmp_path / "a")
    remote.take()

    def work() -> None:
        deadline = time.monotonic() + 60
        with BackgroundSync(remote, seconds=0.05) as sync:
            watching = sync.watching(lambda **_: None)
            write(tmp_path / "a", result=b"1")
            while not objects(uri):
                assert time.monotonic() < deadline
                watching(stage="training", fraction=0.1, message="")
                time.sleep(0.02)
            # Nothing is sent while latencies are measured.
            watching(stage="profile", fraction=0.0, message="")
            write(tmp_path / "a", later=b"2")
            time.sleep(0.5)
            assert len(objects(uri)) == 1
            assert brought(uri, tmp_path / "b") == {"result": b"1"}
            while time.monotonic() < deadline:
                watching(stage="test", fraction=0.1, message="")
                time.sleep(0.02)

    with pytest.raises(SupersededError):
        work()
    assert brought(uri, tmp_path / "c") == {"result": b"1"}


@pytest.mark.parametrize("when", ["between", "at the end"])
def test_a_store_that_hangs_does_not_keep_a_run_that_is_told_to_end(
    s3_uri: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(background_sync, "_LAST_COPY_SECONDS", 0.5)
    asked = threading.Event()

    def hangs(exchange: Exchange) -> bool:
        if exchange.method != "PUT":
            return False
        asked.set()
        return hang(exchange)

    with faulty_server(in_front_of(s3_endpoint)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        remote = opened(s3_uri, tmp_path / "a")
        remote.take()
        write(tmp_path / "a", result=b"1")
        server.fault = hangs

        def work() -> None:
            with BackgroundSync(remote, seconds=0.01 if when == "between" else 3600.0):
                assert when == "at the end" or asked.wait(30)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            work()
        assert asked.is_set()
        server.fault = None
        remote.send(everything=True)
        assert brought(s3_uri, tmp_path / "b") == {"result": b"1"}
