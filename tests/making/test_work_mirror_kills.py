"""A run killed or disturbed while its work directory is copied: no result is ever without what it rests on."""

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
from typing import Any

import pytest
from work_mirrors import brought, opened, write

from edgefolio.errors import TransientError
from edgefolio.repository.storage import Storage, Stream, open_storage
from edgefolio_pruner.work import mirror
from edgefolio_pruner.work.mirror import WorkMirror


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

    def open_at(self, path: str, *, offset: int = 0) -> Stream:
        return self._storage.open_at(path, offset=offset)

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
