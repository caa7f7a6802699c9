"""Switches to a split and away from it, under load: nothing fails, and each answer is whole and of its version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest
from served_splits import served_split
from split_portfolios import SPLIT, SPLIT_TAG, ServedWorker, free_ports, publish_split, served, write_set
from triton_load import Clients, failed
from triton_portfolios import MODEL, images, revealed_tag
from triton_remains import remains_of
from triton_site import FREE_PORTS

from edgefolio.errors import IntegrityError
from edgefolio.manifest import Manifest
from edgefolio.repository import Repository
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.peers.set_document import SetDocument
from edgefolio_edge.triton.client import TritonControl
from edgefolio_edge.triton.launcher.command_line import ServerSettings
from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.placement import Placement
from edgefolio_edge.triton.switcher import Switcher
from edgefolio_worker.records.set_file import NAME
from edgefolio_worker.records.status_file import WorkerStatus

SWITCHES = 8


@dataclass(frozen=True, kw_only=True)
class SplitSite:
    """A server that may serve a worker of a split, and the same portfolio's other variants."""

    server: TritonServer
    store: ModelStore
    control: TritonControl
    switcher: Switcher
    manifest: Manifest
    repository: Path
    set_file: Path
    orders: Path

    def placement(self, name: str) -> Placement:
        return Placement(manifest=self.manifest, variant=self.manifest.variant(name))

    def join(self) -> None:
        """Write the set file of worker 0, as an agent does."""
        variant = self.manifest.variant(SPLIT)
        found = SetDocument.read(self.set_file).for_rank(
            0, path=self.set_file, identity=None, manifest=self.manifest, variant=variant
        )
        (self.orders / "new").write_bytes(found.to_bytes())
        (self.orders / "new").replace(self.orders / NAME)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SplitSite]:
    folder = tmp_path_factory.mktemp("switching")
    manifest = publish_split(folder / "repository", served_split(tag=SPLIT_TAG))
    store = ModelStore(folder / "state", model=MODEL, worker_rank=0)
    for variant in manifest.variants:
        store.fetch(Repository.open(str(folder / "repository")), manifest, variant)
    orders = folder / "orders"
    orders.mkdir()
    server = TritonServer.start(
        ServerSettings(model_repository=store.model_repository, ports=FREE_PORTS, worker_folder=orders)
    )
    control = server.control()
    try:
        yield SplitSite(
            server=server,
            store=store,
            control=control,
            switcher=Switcher(control, store, worker_status=lambda version: WorkerStatus.read(orders, version)),
            manifest=manifest,
            repository=folder / "repository",
            set_file=write_set(folder / "set.yaml", free_ports(2)),
            orders=orders,
        )
    finally:
        control.close()
        server.stop()
        assert remains_of(server) == ()


@pytest.fixture(scope="module")
def peer(site: SplitSite) -> Iterator[ServedWorker]:
    with served(site.repository, site.set_file, 1) as worker:
        yield worker


def test_a_split_alone_serves_by_its_fallback_and_the_canary_says_so(site: SplitSite) -> None:
    outcome = site.switcher.switch(site.placement(SPLIT))
    assert outcome.succeeded, outcome.cause
    assert site.switcher.answered_by == "fallback"
    answer = site.control.infer(MODEL, {"image": images()})
    assert (answer.version, revealed_tag(answer.outputs["logits"])) == (103, 1)


def test_switches_to_a_split_and_away_under_load_fail_nothing(site: SplitSite, peer: ServedWorker) -> None:
    site.join()
    order = cycle(["variant-1", SPLIT, "variant-2", SPLIT])
    answered_by = []
    with Clients(site.server.grpc_endpoint, site.server.http_endpoint or "", model=MODEL) as clients:
        for _ in range(SWITCHES):
            target = site.placement(next(order))
            outcome = site.switcher.switch(target)
            assert outcome.succeeded, outcome.cause
            if target.variant.split is not None:
                answered_by.append(site.switcher.answered_by)
                # Long enough to link and be probed.
                deadline = len(clients.requests()) + 5000
                while not (status := WorkerStatus.read(site.orders, 103)) or not status.is_linked:
                    clients.wait_for(len(clients.requests()) + 10)
                    assert len(clients.requests()) < deadline
            clients.wait_for(len(clients.requests()) + 60)
    requests = clients.requests()
    assert failed(requests) == []
    # Each answer is that of the variant that its version stands for; a split's, the fallback's whole.
    expected = {101: {1}, 102: {2}, 103: {SPLIT_TAG, 1}}
    assert [entry for entry in requests if entry.tag not in expected[entry.version or 0]] == []
    assert {entry.tag for entry in requests} == {1, 2, SPLIT_TAG}
    assert set(answered_by) <= {"split", "fallback"}


def test_a_damaged_shard_is_not_loaded_and_the_other_serves_on(site: SplitSite) -> None:
    before = site.placement("variant-2")
    assert site.switcher.switch(before).succeeded
    segment = site.store.version_directory(103) / "shard-0" / "segment-1.onnx"
    content = segment.read_bytes()
    segment.write_bytes(content[:-1] + b"?")
    try:
        outcome = site.switcher.switch(site.placement(SPLIT), previous=before)
        assert (outcome.succeeded, outcome.damaged, outcome.restored) == (False, True, True)
        with pytest.raises(IntegrityError, match="missing or damaged"):
            site.store.require(site.manifest, site.manifest.variant(SPLIT))
        site.store.fetch(Repository.open(str(site.repository)), site.manifest, site.manifest.variant(SPLIT))
        assert site.switcher.switch(site.placement(SPLIT), previous=before).succeeded
    finally:
        assert site.store.has(site.manifest, site.manifest.variant(SPLIT))


def test_a_split_and_variants_of_one_node_are_not_loaded_together(site: SplitSite) -> None:
    with pytest.raises(ValueError, match="different backends"):
        site.switcher.switch(site.placement(SPLIT), standby=[site.placement("variant-1")])
