"""Shared memory holds the requests of two versions: Triton refuses larger ones, and serves on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from triton_portfolios import MODEL, SIZE, revealed_tag
from triton_site import Site

from edgefolio.manifest import Manifest
from edgefolio.repository import Repository
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.triton.client import ControlError
from edgefolio_edge.triton.launcher.command_line import ServerSettings
from edgefolio_edge.triton.launcher.ports import Ports
from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.switcher import Switcher


def test_a_request_beyond_the_bound_is_refused_with_the_bound(
    tmp_path: Path, manifest: Manifest, repository: Path
) -> None:
    store = ModelStore(tmp_path / "state", model=MODEL, shared_memory_bytes=1 << 20)
    for variant in manifest.variants:
        store.fetch(Repository.open(str(repository)), manifest, variant)
    settings = ServerSettings(model_repository=store.model_repository, ports=Ports(grpc=0, metrics=0))
    server = TritonServer.start(settings)
    control = server.control()
    try:
        switcher = Switcher(control, store)
        site = Site(server=server, store=store, control=control, switcher=switcher, manifest=manifest)
        assert store.largest_batch(manifest) == 1
        for rank in (1, 2, 1):
            site.serve(rank)
            with pytest.raises(ControlError, match="batch-size must be <= 1"):
                control.infer(MODEL, {"image": np.zeros((2, 1, SIZE, SIZE), np.float32)})
            one = control.infer(MODEL, {"image": np.zeros((1, 1, SIZE, SIZE), np.float32)})
            assert revealed_tag(one.outputs["logits"]) == rank
    finally:
        control.close()
        server.stop()
