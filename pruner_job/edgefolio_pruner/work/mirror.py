"""Mirror of a work directory in an object store, so that a Job resumes elsewhere after a node loss.

    <uri>/threads.json                  how many threads all runs take: other numbers would give other bits
    <uri>/<slot>/index.json             the files of one run, with digest and size; replaced as a whole, conditionally
    <uri>/<slot>/objects/<sha256>       their bytes, never changed

A later run trusts the index alone. It is written after the objects it names and with only the files
that were whole at one instant, so it never holds a result without its inputs; and downloads are
compared with its digest, so a torn object is as good as none. A slot belongs to the run that took it last: a run whose
node was lost, but that works on unseen, finds another owner in its index, changes nothing any more and stops.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgefolio.errors import EdgefolioError, IntegrityError, TransientError
from edgefolio.repository.fetching import digest_of_file, fetch_verified
from edgefolio.repository.storage import Storage, open_storage

logger = logging.getLogger(__name__)

#: Slot of the run that publishes.
MAIN = "main"
_FIELD = "spec.job.workDirectory.uri"
_INDEX = "index.json"
_OBJECTS = "objects"
_THREADS = "threads.json"
_LARGEST_INDEX_BYTES = 16 << 20
#: Files modified this shortly before a scan wait for the next one.
_SETTLED_SECONDS = 0.1
#: Retries of a scan while a file is being replaced.
_LOOKS = 20
#: Interval of index writes during a long upload.
_INDEX_SECONDS = 10.0
_OWN_NAMES = frozenset({"lock"})

#: No path traversal, and no hidden (unfinished) files.
_PATH = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"
_RelativePath = Annotated[str, Field(pattern=_PATH)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SupersededError(EdgefolioError):
    """Another run has taken this one's place; it must stop."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Entry(_Record):
    sha256: _Digest
    size: Annotated[int, Field(ge=0)]


class _Index(_Record):
    format: Annotated[int, Field(ge=1, le=1)] = 1
    owner: str
    files: dict[_RelativePath, _Entry] = {}

    @classmethod
    def read(cls, raw: bytes | None) -> _Index | None:
        """What :meth:`to_bytes` wrote; ``None`` for anything else: work is then done anew."""
        try:
            return cls.model_validate_json(raw) if raw is not None else None
        except ValidationError:
            return None

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()

    @property
    def digests(self) -> frozenset[str]:
        return frozenset(entry.sha256 for entry in self.files.values())


class _Threads(_Record):
    threads: Annotated[int, Field(ge=1, le=4096)]


@dataclass(frozen=True)
class _Signature:
    """Changes when a file is replaced."""

    modified: int
    size: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Signature:
        return cls(status.st_mtime_ns, status.st_size, status.st_ino)


@dataclass
class _Held:
    """This run's view of the slot's contents in the store."""

    index: _Index
    signatures: dict[str, _Signature] = field(default_factory=dict)
    #: Uploaded, not yet in the index.
    sent: dict[str, tuple[_Signature, _Entry]] = field(default_factory=dict)


class WorkMirror:
    """One slot of a work directory in an object store, and the folder that it is a copy of; for one thread at a time.

    Methods raise :class:`~edgefolio.errors.UserError` if the store cannot be reached.
    """

    def __init__(self, storage: Storage, folder: Path, *, slot: str = MAIN) -> None:
        self._storage, self._folder, self._slot = storage, folder, slot
        self._held = _Held(_Index(owner=secrets.token_hex(16)))

    @classmethod
    def open(cls, uri: str, folder: Path, *, slot: str = MAIN) -> WorkMirror:
        """The slot at ``uri``, and the local ``folder``."""
        return cls(open_storage(uri, field=_FIELD, create=True), folder, slot=slot)

    def agreed_threads(self, own: int) -> int:
        """The number of threads that the first run here took, which is ``own`` if this is the first."""
        if self._storage.create(_THREADS, _Threads(threads=own).model_dump_json().encode()):
            return own
        try:
            raw = self._storage.read(_THREADS, maximum_bytes=1024) or b""
            return _Threads.model_validate_json(raw).threads
        except ValidationError:
            return own

    def other_slots(self) -> tuple[str, ...]:
        """Slots of other runs at this URI: pieces of this pruning run, or of an earlier one."""
        names = self._storage.names("")
        return tuple(name for name in names if name not in (self._slot, _THREADS))

    def take(self, *, others: Iterable[str] = ()) -> int:
        """Take over the slot and download its files, then further ones of the slots ``others``; returns the count."""
        owner = self._held.index.owner

        def taken(found: bytes | None) -> bytes:
            before = _Index.read(found)
            return _Index(owner=owner, files=before.files if before is not None else {}).to_bytes()

        index = self._index_of(self._storage.update(self._path(_INDEX), taken))
        # Unreferenced objects come from a killed or superseded run.
        for name in self._storage.names(self._path(_OBJECTS)):
            if name not in index.digests:
                self._storage.delete(self._path(f"{_OBJECTS}/{name}"))
        brought = dict(self._brought(self._slot, index.files))
        self._held = _Held(
            _Index(owner=owner, files={name: index.files[name] for name in brought}), signatures=dict(brought)
        )
        for slot in others:
            raw = self._storage.read(f"{slot}/{_INDEX}", maximum_bytes=_LARGEST_INDEX_BYTES)
            other = _Index.read(raw)
            wanted = {name: entry for name, entry in (other.files if other else {}).items() if name not in brought}
            brought |= self._brought(slot, wanted)
        return len(brought)

    def send(self, *, everything: bool = False) -> None:
        """Upload changes of the folder; ``everything``: writing to it has ended.

        Waits for up to two seconds while files are being replaced. Raises :class:`SupersededError` if another run took
        the slot, and :class:`TransientError` if with ``everything`` files still change.
        """
        for _ in range(_LOOKS):
            if self._send_as_found(horizon=None if everything else time.time_ns() - int(_SETTLED_SECONDS * 1e9)):
                return
            time.sleep(_SETTLED_SECONDS)
        if everything:
            raise TransientError(
                "files of the work directory change while it is copied for the last time.",
                field=_FIELD,
                remedy="End what else writes there, and run again.",
            )
        # Files keep changing; the store stays as it is until the next call.

    def _send_as_found(self, *, horizon: int | None) -> bool:
        """Send what changed before ``horizon`` (nanoseconds since the epoch), as it is found now.

        ``False``, and no new index, if an indexed file is just being replaced: its old version may not match the other
        uploads, and its new one the files not uploaded yet.
        """
        found = dict(self._found())
        held = self._held.signatures
        changed = {name: signature for name, signature in found.items() if held.get(name) != signature}
        settled = {name: at for name, at in changed.items() if horizon is None or at.modified <= horizon}
        replaced = {name for name in changed if name in self._held.index.files}
        if not replaced <= settled.keys():
            return False
        files = {name: entry for name, entry in self._held.index.files.items() if name in found}
        written_at = time.monotonic()
        # By modification time, so that an index written in between holds no result without its inputs.
        for name, signature in sorted(settled.items(), key=lambda item: (item[1].modified, item[0])):
            entry = self._sent(name, as_found=signature)
            if entry is None:
                return False
            files[name] = entry
            replaced.discard(name)
            if time.monotonic() - written_at > _INDEX_SECONDS and not replaced:
                self._write(files)
                written_at = time.monotonic()
        self._write(files)
        return True

    def forget(self, slots: Iterable[str]) -> None:
        """Remove other slots that are not needed any more. A run that still works there finds no index, and stops."""
        for slot in slots:
            self._storage.delete(f"{slot}/{_INDEX}")
            for name in self._storage.names(f"{slot}/{_OBJECTS}"):
                self._storage.delete(f"{slot}/{_OBJECTS}/{name}")

    def _found(self) -> Iterator[tuple[str, _Signature]]:
        """Every finished file of the folder."""
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = Path(folder) / name
                relative = path.relative_to(self._folder).as_posix()
                if relative in _OWN_NAMES or not re.fullmatch(_PATH, relative):
                    continue
                try:
                    yield relative, _Signature.of(path.stat())
                except FileNotFoundError:
                    continue

    def _sent(self, name: str, *, as_found: _Signature) -> _Entry | None:
        """Upload one file; ``None`` if it is not ``as_found`` any more. Writers replace files, never modify them."""
        before = self._held.sent.get(name)
        if before is not None and before[0] == as_found:
            return before[1]
        path, held = self._folder / name, self._folder / ".sending"
        held.unlink(missing_ok=True)
        try:
            if not _hold_as_found(path, held, as_found):
                return None
            entry = _Entry(sha256=digest_of_file(held), size=as_found.size)
            if entry.sha256 not in self._held.index.digests:
                self._storage.write_file(self._path(f"{_OBJECTS}/{entry.sha256}"), held)
        finally:
            held.unlink(missing_ok=True)
        self._held.sent[name] = as_found, entry
        return entry

    def _write(self, files: Mapping[str, _Entry]) -> None:
        before = self._held.index
        index = _Index(owner=before.owner, files=dict(sorted(files.items())))

        def replaced(found: bytes | None) -> bytes | None:
            there = _Index.read(found)
            return index.to_bytes() if there is not None and there.owner == index.owner else None

        after = self._index_of(self._storage.update(self._path(_INDEX), replaced))
        if after.owner != index.owner:
            raise SupersededError("Another pod has taken over the work of this one, which stops.")
        self._held.index = index
        sent = self._held.sent.items()
        self._held.signatures |= {name: at for name, (at, entry) in sent if index.files.get(name) == entry}
        self._held.sent.clear()
        for digest in before.digests - index.digests:
            self._storage.delete(self._path(f"{_OBJECTS}/{digest}"))

    def _brought(self, slot: str, files: Mapping[str, _Entry]) -> Iterator[tuple[str, _Signature]]:
        """Download ``files`` into the folder; those that fail verification are left out, to be made again."""
        for name, entry in files.items():
            path = self._folder / name
            try:
                fetch_verified(
                    self._storage,
                    f"{slot}/{_OBJECTS}/{entry.sha256}",
                    path,
                    sha256=entry.sha256,
                    size_bytes=entry.size,
                )
            except IntegrityError as error:
                logger.warning("%s is not brought back: %s", name, error)
                continue
            yield name, _Signature.of(path.stat())

    def _path(self, name: str) -> str:
        return f"{self._slot}/{name}"

    @staticmethod
    def _index_of(raw: bytes | None) -> _Index:
        """The index in ``raw``; an ownerless one if absent."""
        return _Index.read(raw) or _Index(owner="")


def _hold_as_found(path: Path, held: Path, as_found: _Signature) -> bool:
    """:func:`_hold`, and whether these are the bytes that were found."""
    try:
        _hold(path, held)
        return _Signature.of(path.stat()) == as_found
    except FileNotFoundError:
        return False


def _hold(path: Path, held: Path) -> None:
    """A hard link to the bytes that ``path`` has now; a copy where the file system has no hard links."""
    try:
        os.link(path, held)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, held)
