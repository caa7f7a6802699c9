"""The copy of a work directory: nothing torn is believed, no result without what it rests on, one writer at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from edgefolio.errors import TransientError, UserError
from edgefolio.files import write_durably
from edgefolio.repository.storage import Storage, open_storage
from edgefolio_pruner.work import mirror
from edgefolio_pruner.work.background_sync import BackgroundSync
from edgefolio_pruner.work.mirror import SupersededError, WorkMirror


@pytest.fixture(params=["directory", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return str(tmp_path / "store")
    s3: str = request.getfixturevalue("s3_uri")
    return s3


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def write(folder: Path, **files: bytes) -> None:
    for name, raw in files.items():
        write_durably(folder / name.replace("__", "/"), raw)


def opened(uri: str, folder: Path, *, slot: str = "main") -> WorkMirror:
    return WorkMirror.open(uri, folder, slot=slot)


def brought(uri: str, folder: Path, *, slot: str = "main") -> dict[str, bytes]:
    """What a fresh run finds."""
    opened(uri, folder, slot=slot).take()
    return content(folder) if folder.exists() else {}


def objects(uri: str, slot: str = "main") -> set[str]:
    return set(open_storage(uri, field="uri").names(f"{slot}/objects"))


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


class Crash(BaseException):
    """The machine is gone."""


class FailingStorage:
    """A real storage whose run dies before its ``last`` write; ``whole`` says whether that write still arrives."""

    can_publish = True

    def __init__(self, storage: Storage, *, writes: int, whole: bool) -> None:
        self._storage, self._left, self._whole = storage, writes, whole
        self.uri, self.field = storage.uri, storage.field

    def _counted(self, write: Callable[[], object]) -> object:
        self._left -= 1
        if self._left < 0:
            if self._whole:
                write()
            raise Crash
        return write()

    def mend(self) -> None:
        self._left = 1_000_000

    def read(self, path: str, *, maximum_bytes: int) -> bytes | None:
        return self._storage.read(path, maximum_bytes=maximum_bytes)

    def open_at(self, path: str, **options: Any) -> BinaryIO:
        return self._storage.open_at(path, **options)

    def translated_errors(self, path: str = "") -> contextlib.AbstractContextManager[None]:
        return self._storage.translated_errors(path)

    def names(self, folder: str) -> tuple[str, ...]:
        return self._storage.names(folder)

    def create(self, path: str, raw: bytes) -> bool:
        return bool(self._counted(lambda: self._storage.create(path, raw)))

    def write(self, path: str, raw: bytes) -> None:
        self._counted(lambda: self._storage.write(path, raw))

    def write_file(self, path: str, source: Path) -> None:
        self._counted(lambda: self._storage.write_file(path, source))

    def update(self, path: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
        found = self._counted(lambda: self._storage.update(path, change))
        assert found is None or isinstance(found, bytes)
        return found

    def delete(self, path: str) -> None:
        self._counted(lambda: self._storage.delete(path))


def results(folder: Path, chance: random.Random) -> Iterator[None]:
    """Work as the stages do it: a file, then the result that names its digest; now and then one is replaced."""
    for number in range(6):
        raw = chance.randbytes(chance.randrange(1, 4000))
        write(folder, **{f"stage-{number}__weights": raw, "checkpoint": chance.randbytes(100)})
        write(folder, **{f"stage-{number}.json": hashlib.sha256(raw).hexdigest().encode()})
        yield


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_any_write_no_result_is_without_what_it_rests_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # Short ones end between a result's files, whatever the machine's speed.
    monkeypatch.setattr(mirror, "_SETTLED_SECONDS", (0.002, 0.01, 0.1)[seed % 3])
    if seed % 2:  # a file system without second names for a file
        monkeypatch.setattr(mirror, "_hold", shutil.copyfile)
    chance = random.Random(seed)
    store = tmp_path / "store"
    finished = 0
    for attempt in range(8):
        storage = open_storage(str(store), field="uri", create=True)
        failing = FailingStorage(storage, writes=chance.randrange(2, 30), whole=chance.random() < 0.5)
        folder = tmp_path / f"run-{attempt}"
        remote = WorkMirror(failing, folder)
        with contextlib.suppress(Crash):
            remote.take()
            for _ in results(folder, chance):
                time.sleep(0.003)
                remote.send(everything=chance.random() < 0.7)
        found = brought(str(store), tmp_path / f"look-{attempt}")
        named = [name for name in found if name.endswith(".json")]
        for name in named:
            weights = found[name.replace(".json", "/weights")]
            assert hashlib.sha256(weights).hexdigest().encode() == found[name]
        # What was once kept is not lost by a later run that dies.
        assert len(named) >= finished or len(named) == 6
        finished = len(named)
    assert finished > 0


def test_a_result_that_is_replaced_under_way_goes_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_SETTLED_SECONDS", 0.02)
    folder, store = tmp_path / "run", tmp_path / "store"
    remote = opened(str(store), folder)
    remote.take()
    enough = threading.Event()

    def replace() -> None:
        chance = random.Random(1)
        while not enough.wait(chance.random() * 0.1):
            (folder / "stage.json").unlink(missing_ok=True)
            raw = chance.randbytes(300_000)
            write(folder, stage__weights=raw)
            write(folder, **{"stage.json": hashlib.sha256(raw).hexdigest().encode()})

    writer = threading.Thread(target=replace)
    writer.start()
    seen: set[str] = set()
    deadline = time.monotonic() + 60
    try:
        while len(seen) < 20 and time.monotonic() < deadline:
            remote.send()
            found = json.loads((store / "main" / "index.json").read_bytes())["files"]
            if "stage.json" in found:
                weights = found["stage/weights"]["sha256"]
                assert (store / "main" / "objects" / found["stage.json"]["sha256"]).read_text() == weights
                seen.add(weights)
    finally:
        enough.set()
        writer.join()
    assert len(seen) == 20


def test_an_index_that_did_not_arrive_is_written_by_the_next_call(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "store"), field="uri", create=True)
    failing = FailingStorage(storage, writes=2, whole=False)
    remote = WorkMirror(failing, tmp_path / "run")
    remote.take()
    write(tmp_path / "run", one=b"1")
    with pytest.raises(Crash):
        remote.send(everything=True)
    failing.mend()
    remote.send(everything=True)
    assert brought(str(tmp_path / "store"), tmp_path / "look") == {"one": b"1"}


def test_a_last_copy_that_cannot_be_whole_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_SETTLED_SECONDS", 0.001)
    remote = opened(str(tmp_path / "store"), tmp_path / "run")
    remote.take()
    write(tmp_path / "run", one=b"0")
    remote.send(everything=True)

    def replace(path: Path, held: Path) -> None:
        shutil.copyfile(path, held)
        write(tmp_path / "run", one=os.urandom(8))

    monkeypatch.setattr(mirror, "_hold", replace)
    write(tmp_path / "run", one=b"1")
    with pytest.raises(TransientError, match="last time"):
        remote.send(everything=True)
    assert brought(str(tmp_path / "store"), tmp_path / "look") == {"one": b"0"}


def test_what_a_given_up_look_sent_is_not_taken_for_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_SETTLED_SECONDS", 0.001)
    folder, aside = tmp_path / "run", tmp_path / "aside"
    remote = opened(str(tmp_path / "store"), folder)
    remote.take()
    write(folder, old=b"0")
    remote.send(everything=True)
    hold, held_names = mirror._hold, []

    def indexed() -> dict[str, Any]:
        files: dict[str, Any] = json.loads((tmp_path / "store" / "main" / "index.json").read_bytes())["files"]
        return files

    def hold_and_disturb(path: Path, held: Path) -> None:
        hold(path, held)
        held_names.append(path.name)
        if held_names == ["added", "old"]:  # "added" is sent; now the look is spoiled, and "added" goes for a while
            (folder / "added").rename(aside)
            write(folder, old=b"2")

    write(folder, added=b"a")
    write(folder, old=b"1")
    monkeypatch.setattr(mirror, "_hold", hold_and_disturb)
    remote.send(everything=True)
    assert sorted(indexed()) == ["old"]
    aside.rename(folder / "added")
    remote.send(everything=True)
    assert sorted(indexed()) == ["added", "old"]


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
