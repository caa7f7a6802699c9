"""Verified bytes only, the last good revision kept, and one writer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from triton_portfolios import MODEL, publish, revealing_model

from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import Manifest, PublishedManifest
from edgefolio.repository import Repository
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.models.variants import by_size, variant_named
from edgefolio_edge.process.directory_lock import only_writer_of_directory, only_writer_of_endpoint


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "portfolios"


@pytest.fixture
def manifest(repository: Path) -> Manifest:
    return publish(repository, [revealing_model(1, width=16), revealing_model(2, width=4)])


def _follow(store: ModelStore, repository: Path, *, pinned: int | None = None) -> Synchronizer:
    return Synchronizer(lambda: Repository.open(str(repository)), store, pinned_revision=pinned)


def _damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)


def test_the_smallest_variant_comes_first_and_whole(tmp_path: Path, repository: Path, manifest: Manifest) -> None:
    store = ModelStore(tmp_path / "state", model=MODEL)
    seen: list[tuple[str, ...]] = []
    synchronizer = Synchronizer(
        lambda: Repository.open(str(repository)), store, changed=lambda: seen.append(synchronizer.synced.available)
    )
    synced = synchronizer.step()
    assert [variant.name for variant in by_size(manifest)] == ["variant-2", "variant-1"]
    assert seen[:2] == [("variant-2",), ("variant-1", "variant-2")]
    assert synced.complete
    assert synced.available == ("variant-1", "variant-2")
    assert sorted(path.name for path in store.version_directory(101).iterdir()) == ["model.onnx", "probe.json"]
    assert (store.model_directory / "config.pbtxt").is_file()
    assert {path.name for path in store.model_directory.iterdir()} == {"101", "102", "config.pbtxt"}


def test_nothing_changes_on_disk_when_nothing_is_new(tmp_path: Path, repository: Path, manifest: Manifest) -> None:
    store = ModelStore(tmp_path / "state", model=MODEL)
    synchronizer = _follow(store, repository)
    synchronizer.step()
    times = {path: path.stat().st_mtime_ns for path in store.model_repository.rglob("*")}
    synchronizer.step()
    _follow(ModelStore(tmp_path / "state", model=MODEL), repository).step()
    assert {path: path.stat().st_mtime_ns for path in store.model_repository.rglob("*")} == times


def test_a_damaged_local_copy_is_fetched_again(tmp_path: Path, repository: Path, manifest: Manifest) -> None:
    store = ModelStore(tmp_path / "state", model=MODEL)
    synchronizer = _follow(store, repository)
    synchronizer.step()
    _damage(store.version_directory(101) / "model.onnx")
    with pytest.raises(IntegrityError, match="missing or damaged"):
        store.require(manifest, manifest.variants[0])
    assert synchronizer.step().available == ("variant-1", "variant-2")
    store.require(manifest, manifest.variants[0])


def test_the_last_good_revision_serves_while_the_repository_is_away(
    tmp_path: Path, repository: Path, manifest: Manifest
) -> None:
    store = ModelStore(tmp_path / "state", model=MODEL)
    _follow(store, repository).step()
    shutil.rmtree(repository)
    again = _follow(ModelStore(tmp_path / "state", model=MODEL), repository)
    assert again.synced.manifest == manifest
    assert again.synced.complete
    synced = again.step()
    assert synced.unreachable is not None
    assert synced.manifest == manifest
    assert synced.available == ("variant-1", "variant-2")


def test_a_corrupt_new_revision_is_refused_and_a_good_one_taken(
    tmp_path: Path, repository: Path, manifest: Manifest
) -> None:
    store = ModelStore(tmp_path / "state", model=MODEL)
    synchronizer = _follow(store, repository)
    synchronizer.step()
    publish(repository, [revealing_model(3), revealing_model(4)])
    _damage(repository / "models" / MODEL / "202" / "model.onnx")
    synced = synchronizer.step()
    assert synced.manifest == manifest
    assert synced.refusal is not None
    assert synced.refusal.revision == 2
    assert "202/model.onnx" in synced.refusal.problem
    assert not store.version_directory(202).exists()
    third = publish(repository, [revealing_model(5)])
    synced = synchronizer.step()
    assert synced.manifest == third
    assert synced.refusal is None
    assert synced.complete
    assert store.manifests.of_version(101) == manifest
    assert store.keep_only({3}, served_versions=[102]) == (101, 201)
    assert store.version_directory(102).is_dir()
    assert store.keep_only({3}, served_versions=[301]) == (102,)
    assert store.manifests.of_version(101) is None
    assert store.manifests.last_good() == PublishedManifest.of(third)


def test_a_corrupt_variant_of_the_first_revision_stays_out_and_the_others_serve(
    tmp_path: Path, repository: Path, manifest: Manifest
) -> None:
    _damage(repository / "models" / MODEL / "102" / "model.onnx")
    store = ModelStore(tmp_path / "state", model=MODEL)
    synced = _follow(store, repository).step()
    assert synced.available == ("variant-1",)
    assert not synced.complete
    assert synced.refusal is not None
    assert store.manifests.last_good() is None


def test_a_pinned_revision_is_followed_instead_of_the_pointer(
    tmp_path: Path, repository: Path, manifest: Manifest
) -> None:
    publish(repository, [revealing_model(5)])
    synced = _follow(ModelStore(tmp_path / "state", model=MODEL), repository, pinned=1).step()
    assert synced.manifest == manifest


def test_a_damaged_kept_manifest_is_not_believed(tmp_path: Path, repository: Path, manifest: Manifest) -> None:
    store = ModelStore(tmp_path / "state", model=MODEL)
    _follow(store, repository).step()
    path = tmp_path / "state" / "revisions" / MODEL / "1.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(IntegrityError, match=r"missing or damaged"):
        store.manifests.last_good()
    # An agent starts all the same, says why, and fetches it again.
    again = _follow(ModelStore(tmp_path / "state", model=MODEL), repository)
    assert again.synced.manifest is None
    assert again.synced.refusal is not None
    assert again.step().manifest == manifest


def test_an_unknown_variant_names_the_known_ones(manifest: Manifest) -> None:
    with pytest.raises(UserError, match="variant-1, variant-2"):
        variant_named(manifest, "huge")


def test_one_writer_for_each_endpoint_and_directory(tmp_path: Path) -> None:
    with only_writer_of_endpoint("127.0.0.1:65000"):
        with pytest.raises(UserError, match="already controls"), only_writer_of_endpoint("localhost:65000"):
            pass
        with only_writer_of_endpoint("127.0.0.1:65001"):
            pass
    with only_writer_of_endpoint("127.0.0.1:65000"):
        pass
    state = tmp_path / "state"
    with (
        only_writer_of_directory(state),
        pytest.raises(UserError, match="already controls"),
        only_writer_of_directory(state),
    ):
        pass
    with only_writer_of_directory(tmp_path / "state"):
        pass


def test_a_killed_writer_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from edgefolio_edge.process.directory_lock import only_writer_of_directory, only_writer_of_endpoint\n"
        "with only_writer_of_endpoint('127.0.0.1:65002'), only_writer_of_directory(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        process = rf"process {holder.pid}\)"
        with pytest.raises(UserError, match=process), only_writer_of_endpoint("127.0.0.1:65002"):
            pass
        with pytest.raises(UserError, match=process), only_writer_of_directory(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with only_writer_of_endpoint("127.0.0.1:65002"), only_writer_of_directory(tmp_path):
        pass
