"""Threat: a repository that is written oddly, goes back, fails for a moment, or holds more than the disk has."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from triton_portfolios import MODEL, publish, revealing_model

from edgefolio.errors import TransientError
from edgefolio.manifest import Manifest, sha256_of
from edgefolio.repository import Repository
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.repository_audit import verify_repository
from edgefolio_edge.models.sync_state import Refusal
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.reasons import INSUFFICIENT_STORAGE, REVISION_WENT_BACK


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "portfolios"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "state", model=MODEL)


def follow(repository: Path, store: ModelStore, **options: Any) -> Synchronizer:
    return Synchronizer(lambda: Repository.open(str(repository)), store, **options)


def point(repository: Path, revision: int) -> None:
    """Let the pointer name ``revision``, as whoever may write the repository can."""
    folder = repository / "revisions" / MODEL
    digest = sha256_of((folder / f"{revision}.json").read_bytes())
    (folder / "current.json").write_text(json.dumps({"model": MODEL, "revision": revision, "manifestSha256": digest}))


def rewrite(repository: Path, manifest: Manifest, *, without: tuple[str, ...] = ()) -> bytes:
    """Write the manifest in one line, without fields that have defaults: as another program or version would."""
    document = json.loads(manifest.to_bytes())
    raw = json.dumps({key: value for key, value in reversed(document.items()) if key not in without}).encode()
    (repository / "revisions" / MODEL / f"{manifest.revision}.json").write_bytes(raw)
    point(repository, manifest.revision)
    return raw


@pytest.mark.parametrize("without", [(), ("reproduce", "accuracyFloorMet", "rejected", "sourceSha256")])
def test_a_manifest_in_another_form_is_taken_once_and_found_by_its_digest(
    repository: Path, store: ModelStore, tmp_path: Path, without: tuple[str, ...]
) -> None:
    manifest = publish(repository, [revealing_model(1), revealing_model(2)])
    raw = rewrite(repository, manifest, without=without)
    assert verify_repository(Repository.open(str(repository))).is_sound
    told: list[object] = []
    synchronizer = follow(repository, store, changed=lambda: told.append(synchronizer.synced))
    assert synchronizer.step().complete
    taken, written = len(told), {path: path.stat().st_mtime_ns for path in (tmp_path / "state").rglob("*")}
    for _ in range(3):
        assert synchronizer.step().complete
    assert len(told) == taken
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "state").rglob("*")} == written
    publish(repository, [revealing_model(3)])
    assert synchronizer.step().complete
    shutil.rmtree(repository)
    # An order to go back, and a start, while the repository is away.
    ordered = follow(repository, store, ordered=lambda: (1, sha256_of(raw)))
    assert (ordered.step().manifest, ordered.synced.complete) == (manifest, True)
    again = follow(repository, ModelStore(tmp_path / "state", model=MODEL))
    assert (again.synced.manifest, again.synced.complete) == (manifest, True)


def test_a_pointer_that_goes_back_is_refused_until_it_goes_on(
    repository: Path, store: ModelStore, tmp_path: Path
) -> None:
    for tag in (1, 2, 3):
        third = publish(repository, [revealing_model(tag)])
    told: list[Refusal | None] = []
    synchronizer = follow(repository, store, changed=lambda: told.append(synchronizer.synced.refusal))
    assert synchronizer.step().manifest == third
    told.clear()
    for revision in (1, 1, 1, 2):
        point(repository, revision)
        synced = synchronizer.step()
        assert (synced.manifest, synced.complete) == (third, True)
        assert synced.refusal is not None
        assert (synced.refusal.revision, synced.refusal.reason) == (revision, REVISION_WENT_BACK)
        assert "--allow-rollback" in synced.refusal.problem
    assert [refusal.revision for refusal in told if refusal is not None] == [1, 2], "each is said once"
    # Neither does a restart forget it.
    again = follow(repository, ModelStore(tmp_path / "state", model=MODEL))
    assert again.step().manifest == third
    assert again.synced.refusal is not None
    point(repository, 3)
    assert synchronizer.step().refusal is None
    fourth = publish(repository, [revealing_model(4)])
    assert synchronizer.step().manifest == fourth


@pytest.mark.parametrize("served", [None, (), (101,), (201,)])
def test_the_way_back_is_open_from_a_revision_that_cannot_be_served(
    repository: Path, store: ModelStore, served: tuple[int, ...] | None
) -> None:
    first, second = (publish(repository, [revealing_model(tag)]) for tag in (1, 2))
    synchronizer = follow(repository, store)
    assert synchronizer.step().manifest == second
    synchronizer.reject(2, problem="it cannot be loaded", instead=None)
    assert synchronizer.step().manifest == second, "it is all there is"
    synchronizer.served_versions = served
    point(repository, 1)
    assert synchronizer.step().manifest == (second if served == (201,) else first)


def test_the_way_back_is_open_from_a_revision_without_files(repository: Path, store: ModelStore) -> None:
    first, _ = (publish(repository, [revealing_model(tag)]) for tag in (1, 2))
    shutil.rmtree(repository / "models" / MODEL / "201")
    synchronizer = follow(repository, store)
    assert synchronizer.step().available == ()
    point(repository, 1)
    assert (synchronizer.step().manifest, synchronizer.synced.complete) == (first, True)


def test_what_serves_instead_of_a_rejected_revision_is_kept_whole(repository: Path, store: ModelStore) -> None:
    first = publish(repository, [revealing_model(1)])
    synchronizer = follow(repository, store)
    synchronizer.step()
    publish(repository, [revealing_model(2)])
    synchronizer.step()
    away = repository.rename(repository.with_name("away"))
    synchronizer.reject(2, problem="it cannot be loaded", instead=first)
    synced = synchronizer.step()
    assert (synced.manifest, synced.complete) == (first, True), "though the repository cannot be read"
    away.rename(repository)
    shutil.rmtree(store.version_directory(101))
    synced = synchronizer.step()
    assert (synced.manifest, synced.complete) == (first, True)
    assert synced.refusal is not None
    assert synced.refusal.revision == 2


def test_a_manifest_on_disk_is_parsed_once_until_it_changes(repository: Path, store: ModelStore) -> None:
    publish(repository, [revealing_model(1)])
    follow(repository, store).step()
    kept = store.manifests.of_revision(1)
    assert kept is not None
    assert store.manifests.of_revision(1) is kept
    (store.root / "revisions" / MODEL / "1.json").write_bytes(kept.raw[:-2])
    assert store.manifests.of_revision(1) is None


@pytest.mark.parametrize("options", [{"may_go_back": True}, {"pinned_revision": 1}])
def test_a_person_may_go_back(repository: Path, store: ModelStore, options: dict[str, Any]) -> None:
    first = publish(repository, [revealing_model(1)])
    publish(repository, [revealing_model(2)])
    follow(repository, store).step()
    point(repository, 1)
    synced = follow(repository, store, **options).step()
    assert (synced.manifest, synced.refusal) == (first, None)


def test_verify_asks_for_each_model_a_few_times(repository: Path) -> None:
    def listings(models: int) -> int:
        for number in range(models):
            folder = repository / "revisions" / f"model-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "current.json").write_text("{}")
        counted = Repository.open(str(repository))
        names, calls = counted.storage.names, []
        counted.storage.names = lambda folder: calls.append(folder) or names(folder)  # type: ignore[method-assign]
        verification = verify_repository(counted)
        assert len(verification.all_findings) == models
        return len(calls)

    few, many = listings(20), listings(40)
    assert many - few <= 20


class Failing(Repository):
    """A repository whose store does not answer for one file, a number of times."""

    times = 3

    def fetch(self, manifest: Manifest, variant: Any, destination: Path, **options: Any) -> Path:
        if variant.rank == 2 and self.times:
            self.times -= 1
            raise TransientError("the store cannot be reached (503).", field="--repository", remedy="Wait.")
        return super().fetch(manifest, variant, destination, **options)


@pytest.mark.parametrize("first", [True, False])
def test_a_store_that_fails_for_a_moment_makes_no_revision_refused(
    repository: Path, store: ModelStore, first: bool
) -> None:
    failing = Failing(Repository.open(str(repository.parent)).storage)
    synchronizer = Synchronizer(lambda: failing, store)
    manifest = publish(repository, [revealing_model(1, width=4), revealing_model(2)])
    failing.storage = Repository.open(str(repository)).storage
    if not first:
        failing.times = 0
        assert synchronizer.step().complete
        manifest = publish(repository, [revealing_model(3, width=4), revealing_model(4)])
        failing.times = 3
    for _ in range(3):
        synced = synchronizer.step()
        assert synced.refusal is None
        assert synced.unreachable is not None
    synced = synchronizer.step()
    assert (synced.manifest, synced.complete, synced.unreachable) == (manifest, True, None)


@pytest.fixture
def small_files() -> Iterator[None]:
    """Writes end after 64 KiB of a file, with an error that means a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def large_and_small(repository: Path) -> tuple[Manifest, Manifest, Manifest]:
    """Three revisions, of which the second is larger; the pointer names the first."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit[1], limit[1]))
    made = (
        publish(repository, [revealing_model(1)]),
        publish(repository, [revealing_model(2), revealing_model(3, width=150, layers=3)]),
        publish(repository, [revealing_model(4)]),
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    point(repository, 1)
    return made


def followed_over_a_full_disk(repository: Path, store: ModelStore) -> None:
    first, _, third = large_and_small(repository)
    synchronizer = follow(repository, store)
    assert synchronizer.step().manifest == first
    point(repository, 2)
    for _ in range(2):
        synced = synchronizer.step()
        assert (synced.manifest, synced.complete, synced.unreachable) == (first, True, None)
        assert synced.refusal is not None
        assert (synced.refusal.revision, synced.refusal.reason) == (2, INSUFFICIENT_STORAGE)
        assert "the disk of this machine" in synced.refusal.problem
        assert not list(store.root.rglob("*.partial"))
    point(repository, 3)
    synced = synchronizer.step()
    assert (synced.manifest, synced.complete, synced.refusal) == (third, True, None)


@pytest.mark.usefixtures("small_files")
def test_a_disk_that_fills_up_while_fetching_keeps_nothing_and_takes_the_next(
    repository: Path, store: ModelStore
) -> None:
    followed_over_a_full_disk(repository, store)


@pytest.mark.usefixtures("small_files")
def test_a_first_revision_serves_what_the_disk_holds(repository: Path, store: ModelStore) -> None:
    _, second, _ = large_and_small(repository)
    point(repository, 2)
    synced = follow(repository, store).step()
    assert (synced.manifest, synced.available, synced.complete) == (second, ("variant-1",), False)
    assert synced.refusal is not None
    assert synced.refusal.reason == INSUFFICIENT_STORAGE
    assert not list(store.root.rglob("*.partial"))


def test_a_revision_that_the_disk_cannot_hold_is_not_begun(repository: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        followed_over_a_full_disk(repository, ModelStore(disk / "state", model=MODEL))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
