"""The synchronizer with a store that hangs, errs or knows no ranges: no order waits, no revision is blamed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_server import Exchange, Fault, FaultyServer, drip, faulty_server, files_of, hang, only, status
from triton_portfolios import MODEL, publish, revealing_model

from edgefolio.errors import TransientError
from edgefolio.manifest import Manifest, sha256_of
from edgefolio.repository import Repository
from edgefolio.repository.remote import calls
from edgefolio_edge.check import look
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.repository_audit import verify_repository
from edgefolio_edge.models.synchronizer import Synchronizer

Order = tuple[int, str]


class Site:
    """A node that follows orders from a web server."""

    def __init__(self, folder: Path, server: FaultyServer) -> None:
        self.folder, self.server = folder, server
        self.order: Order | None = None
        self.store = ModelStore(folder / "state", model=MODEL)
        self.changed, self.woken = threading.Event(), threading.Event()
        self.synchronizer = Synchronizer(
            lambda: Repository.open(server.url),
            self.store,
            ordered=lambda: self.order,
            poll_seconds=0.05,
            woken=self.woken,
            changed=self.changed.set,
        )

    def publish(self, *tags: int) -> Manifest:
        return publish(self.folder / "portfolios", [revealing_model(tag) for tag in tags])

    def ask(self, manifest: Manifest) -> None:
        self.order = (manifest.revision, sha256_of(manifest.to_bytes()))
        self.woken.set()

    def until(self, claim: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not claim():
            assert time.monotonic() < end, self.synchronizer.synced
            time.sleep(0.01)

    def serves(self, manifest: Manifest) -> bool:
        return self.synchronizer.synced.manifest == manifest and self.synchronizer.synced.complete


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with faulty_server(files_of(tmp_path / "portfolios")) as server:
        site = Site(tmp_path, server)
        yield site
        site.synchronizer.stop()


@pytest.mark.parametrize("part", ["/201/", "/2.json"])
@pytest.mark.parametrize("fault", [hang, drip(5, seconds=0.5)], ids=["hang", "drip"])
def test_another_order_waits_for_no_store(site: Site, monkeypatch: pytest.MonkeyPatch, part: str, fault: Fault) -> None:
    for module in ("calls", "http_storage"):
        monkeypatch.setattr(f"edgefolio.repository.remote.{module}.SILENT_SECONDS", 3600.0)
    monkeypatch.setattr(calls, "SLOW_WINDOW_SECONDS", 3600.0)
    first, second, third = site.publish(1), site.publish(2), site.publish(3)
    site.ask(first)
    site.synchronizer.start()
    site.until(lambda: site.serves(first))
    asked = threading.Event()

    def noticed(exchange: Exchange) -> bool:
        asked.set()
        return fault(exchange)

    site.server.fault = only(part, noticed)
    site.ask(second)
    assert asked.wait(30)
    site.ask(third)
    site.until(lambda: site.serves(third))
    # Back to what is on disk needs no store at all.
    site.server.fault = hang
    site.ask(first)
    site.until(lambda: site.serves(first))


@pytest.mark.parametrize("part", ["/201/", "/2.json"])
@pytest.mark.parametrize("code", [429, 500, 503, 403])
def test_a_store_in_trouble_is_no_fault_of_the_revision(site: Site, part: str, code: int) -> None:
    first, second = site.publish(1), site.publish(2)
    site.ask(first)
    assert site.synchronizer.step().complete
    site.server.fault = only(part, status(code))
    site.ask(second)
    synced = site.synchronizer.step()
    assert synced.manifest == first
    assert synced.refusal is None
    assert str(code) in (synced.unreachable or "")
    site.server.fault = None
    assert site.synchronizer.step().manifest == second
    assert site.synchronizer.synced.unreachable is None


def test_a_server_without_ranges_never_holds_up_a_rest(tmp_path: Path) -> None:
    with faulty_server(files_of(tmp_path / "portfolios", ranges=False)) as server:
        site = Site(tmp_path, server)
        manifest = site.publish(1)
        (variant,) = manifest.variants
        folder = site.folder / "state" / "incoming" / MODEL / "101"
        folder.mkdir(parents=True)
        whole = (tmp_path / "portfolios" / "models" / MODEL / variant.file).read_bytes()
        (folder / f".model.onnx.{variant.sha256[:16]}.partial").write_bytes(whole[:100])
        site.ask(manifest)
        assert site.synchronizer.step().complete


def test_a_server_without_listings_is_audited_by_name(tmp_path: Path) -> None:
    with faulty_server(files_of(tmp_path / "portfolios", listings=False)) as server:
        site = Site(tmp_path, server)
        site.publish(1)
        manifest = site.publish(2)
        listed = verify_repository(Repository.open(str(tmp_path / "portfolios")), model=MODEL)
        unlisted = verify_repository(Repository.open(server.url), model=MODEL)
        assert [found.revision for found in listed.revisions] == [1, 2]
        assert unlisted.revisions == (listed.revisions[1],)
        assert unlisted.findings == listed.findings == ()
        (tmp_path / "portfolios" / "revisions" / MODEL / f"{manifest.revision}.json").unlink()
        assert (
            "which has no manifest" in verify_repository(Repository.open(server.url), model=MODEL).findings[0].problem
        )
        server.fault = status(503)
        with pytest.raises(TransientError):
            verify_repository(Repository.open(server.url), model=MODEL)


@pytest.mark.parametrize("digest", ["current", "older"])
def test_a_digest_that_is_current_is_found_without_a_listing(tmp_path: Path, digest: str) -> None:
    with faulty_server(files_of(tmp_path / "portfolios", listings=False)) as server:
        site = Site(tmp_path, server)
        older, current = (sha256_of(site.publish(tag).to_bytes()) for tag in (1, 2))
        found = look(server.url, MODEL, manifest_digest=current if digest == "current" else older)
        assert found.kind == ("Published" if digest == "current" else "Nothing")
