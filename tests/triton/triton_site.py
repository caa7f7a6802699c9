"""A server with a store and a switcher, as the agent has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from triton_portfolios import MODEL
from triton_remains import remains_of

from edgefolio.manifest import Manifest, PublishedManifest
from edgefolio.repository import Repository
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.triton.client import TritonControl
from edgefolio_edge.triton.launcher.command_line import ServerSettings
from edgefolio_edge.triton.launcher.ports import Ports
from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.placement import Placement
from edgefolio_edge.triton.switcher import Switcher

FREE_PORTS = Ports(http=0, grpc=0, metrics=0)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A server with a store and a switcher, serving nothing at first."""

    server: TritonServer
    store: ModelStore
    control: TritonControl
    switcher: Switcher
    manifest: Manifest

    def placement(self, rank: int) -> Placement:
        return Placement(manifest=self.manifest, variant=self.manifest.variants[rank - 1])

    def serve(self, rank: int) -> None:
        """Make the variant of this rank the one that serves, whatever a test left."""
        outcome = self.switcher.switch(self.placement(rank))
        assert outcome.succeeded, outcome


def open_site(directory: Path, manifest: Manifest, repository: Path, *, ports: Ports = FREE_PORTS) -> Iterator[Site]:
    store = ModelStore(directory / "state", model=MODEL)
    for variant in manifest.variants:
        store.fetch(Repository.open(str(repository)), manifest, variant)
    store.manifests.keep(PublishedManifest.of(manifest), complete=True)
    server = TritonServer.start(ServerSettings(model_repository=store.model_repository, ports=ports))
    control = server.control()
    try:
        yield Site(
            server=server,
            store=store,
            control=control,
            switcher=Switcher(control, store),
            manifest=manifest,
        )
    finally:
        control.close()
        server.stop()
        assert remains_of(server) == ()
