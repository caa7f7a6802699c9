"""What a node grants, what is ordered, and what it can do without the repository."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from triton_portfolios import MODEL, publish, revealing_model

from edgefolio.manifest import Manifest, sha256_of
from edgefolio.repository import Repository
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.sync_state import SyncLimits
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.reasons import INSUFFICIENT_STORAGE, REVISION_REFUSED


class Node:
    """A node that is told by orders, as in a cluster."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.repository = folder / "portfolios"
        self.folder = folder
        self.limits = SyncLimits(**limits)
        self.order: tuple[int, str] | None = None
        self.store = ModelStore(folder / "state", model=MODEL, model_repository=folder / "models")

    def publish(self, *tags: int, width: int = 8) -> Manifest:
        return publish(self.repository, [revealing_model(tag, width=width) for tag in tags])

    def ask(self, manifest: Manifest) -> None:
        self.order = (manifest.revision, sha256_of(manifest.to_bytes()))

    def synchronizer(self, **options: Any) -> Synchronizer:
        return Synchronizer(
            lambda: Repository.open(str(self.repository)),
            self.store,
            ordered=lambda: self.order,
            limits=self.limits,
            **options,
        )

    def versions(self) -> set[str]:
        return {path.name for path in self.store.model_directory.iterdir() if path.is_dir()}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def needed(manifest: Manifest) -> int:
    return sum(variant.size_bytes for variant in manifest.variants)


def until(claim: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_revision_that_does_not_fit_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    sizes = needed(Node(tmp_path / "measured").publish(1, 2, width=64))
    node = Node(tmp_path / "node", storage_bytes=sizes + 2 * sizes // 3)
    first, second = node.publish(1, 2, width=64), node.publish(3, 4, width=64)
    node.ask(first)
    synchronizer = node.synchronizer()
    assert synchronizer.step().complete
    synchronizer.served_versions = (102,)
    node.ask(second)
    synced = synchronizer.step()
    assert synced.manifest == first
    assert synced.complete
    assert synced.refusal is not None
    assert (synced.refusal.reason, synced.refusal.revision) == (INSUFFICIENT_STORAGE, 2)
    assert "spec.serving.managed.storage.sizeLimit" in synced.refusal.problem
    assert node.versions() == {"101", "102"}
    assert not list((tmp_path / "node" / "models").rglob("*.partial"))
    node.ask(first)
    assert synchronizer.step().refusal is None


def test_a_first_revision_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    node = Node(tmp_path, storage_bytes=5000)
    node.ask(node.publish(1, 2, width=32))
    synced = node.synchronizer().step()
    assert synced.manifest is None
    assert synced.refusal is not None
    assert synced.refusal.reason == INSUFFICIENT_STORAGE
    assert " beside " not in synced.refusal.problem


def test_room_is_made_by_what_nobody_serves_any_more(tmp_path: Path) -> None:
    sizes = needed(Node(tmp_path / "measured").publish(1, 2, width=64))
    node = Node(tmp_path / "node", storage_bytes=2 * sizes + sizes // 2)
    first, second, third = (node.publish(tag, tag + 1, width=64) for tag in (1, 3, 5))
    synchronizer = node.synchronizer()
    for manifest in (first, second):
        node.ask(manifest)
        assert synchronizer.step().manifest == manifest
        synchronizer.served_versions = (manifest.revision * 100 + 2,)
    assert node.versions() == {"101", "102", "201", "202"}, "the way back needs no repository"
    node.ask(third)
    assert synchronizer.step().manifest == third
    assert node.versions() == {"201", "202", "301", "302"}


def test_the_way_back_needs_no_repository(node: Node) -> None:
    first, second = node.publish(1, 2), node.publish(3, 4)
    synchronizer = node.synchronizer()
    for manifest in (first, second):
        node.ask(manifest)
        synchronizer.step()
        synchronizer.served_versions = (manifest.revision * 100 + 2,)
    shutil.rmtree(node.repository)
    node.ask(first)
    synced = synchronizer.step()
    assert synced.manifest == first
    assert synced.complete
    assert synced.unreachable is None
    # And so does the next start.
    assert node.synchronizer().synced.manifest == first


def test_what_is_kept_is_believed_only_with_the_ordered_digest(node: Node) -> None:
    first, second = node.publish(1, 2), node.publish(3, 4)
    synchronizer = node.synchronizer()
    for manifest in (first, second):
        node.ask(manifest)
        synchronizer.step()
    node.order = (1, "0" * 64)
    synced = synchronizer.step()
    assert synced.manifest == second
    assert synced.refusal is not None
    assert (synced.refusal.reason, synced.refusal.revision) == (REVISION_REFUSED, 1)


def test_a_first_revision_that_is_not_whole_is_found_again(node: Node) -> None:
    manifest = node.publish(1, 2)
    (node.repository / "models" / MODEL / "102" / "model.onnx").unlink()
    node.ask(manifest)
    assert node.synchronizer().step().available == ("variant-1",)
    shutil.rmtree(node.repository)
    again = node.synchronizer().synced
    assert again.manifest == manifest
    assert again.available == ("variant-1",)
    assert not again.complete


def test_a_new_revision_waits_a_little_and_the_first_does_not(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda _least, most: most)
    node.limits = SyncLimits(jitter_seconds=0.3)
    first, second = node.publish(1), node.publish(2)
    synchronizer = node.synchronizer()
    node.ask(first)
    assert synchronizer.step().manifest == first
    node.ask(second)
    assert synchronizer.step().manifest == first
    time.sleep(0.35)
    assert synchronizer.step().manifest == second
    node.ask(first)
    assert synchronizer.step().manifest == first, "what is here needs no waiting"


def test_the_speed_limit_holds_and_a_stopped_transfer_goes_on(tmp_path: Path) -> None:
    speed = 100_000
    node = Node(tmp_path, bytes_per_second=speed)
    manifest = node.publish(1, width=96)
    size = needed(manifest)
    assert size > 3 * speed, "it must take a while"
    node.ask(manifest)
    began = time.monotonic()
    slow = node.synchronizer()
    slow.start()
    partial = tmp_path / "models" / ".edgefolio-incoming" / MODEL / "101"

    def transferred() -> int:
        return sum(path.stat().st_size for path in partial.glob(".model.onnx.*"))

    until(lambda: transferred() >= speed)
    slow.stop()
    assert transferred() <= speed * (time.monotonic() - began) + 2 * speed
    kept = transferred()
    assert 0 < kept < size
    node.limits = SyncLimits()
    reads: list[int] = []
    repository = Repository.open(str(node.repository))
    original = repository.storage.open_at

    def open_at(path: str, *, offset: int = 0) -> object:
        reads.append(offset)
        return original(path, offset=offset)

    repository.storage.open_at = open_at  # type: ignore[method-assign,assignment]
    fast = Synchronizer(lambda: repository, node.store, ordered=lambda: node.order)
    assert fast.step().complete
    assert reads[-1] == kept, "nothing is fetched twice"


def test_a_partial_file_with_other_bytes_is_thrown_away(node: Node) -> None:
    manifest = node.publish(1, width=32)
    node.ask(manifest)
    (variant,) = manifest.variants
    folder = node.folder / "models" / ".edgefolio-incoming" / MODEL / "101"
    folder.mkdir(parents=True)
    (folder / f".model.onnx.{variant.sha256[:16]}.partial").write_bytes(b"x" * 1000)
    assert node.synchronizer().step().complete
    node.store.require(manifest, variant)


def test_another_order_ends_a_slow_transfer(tmp_path: Path) -> None:
    node = Node(tmp_path)
    first, second = node.publish(1), node.publish(2, width=96)
    node.ask(first)
    assert node.synchronizer().step().complete
    node.limits = SyncLimits(bytes_per_second=20_000)
    look, changed = threading.Event(), threading.Event()
    synchronizer = node.synchronizer(poll_seconds=0.05, woken=look, changed=changed.set)
    node.ask(second)
    synchronizer.start()
    until(lambda: any((tmp_path / "models").rglob("*.partial")))
    changed.clear()
    third = node.publish(3)
    node.limits = SyncLimits()
    began = time.monotonic()
    node.ask(third)
    look.set()
    assert changed.wait(20)
    assert synchronizer.synced.manifest == third
    assert time.monotonic() - began < needed(second) / 20_000, "it did not wait for the rest of the second"
    synchronizer.stop()
