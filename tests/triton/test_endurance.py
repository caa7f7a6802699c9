"""Many switches and many revisions: nothing grows, and nothing that still computes is taken away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from triton_portfolios import MODEL, images, publish, revealed_tag, revealing_model
from triton_site import Site, open_site

from edgefolio.manifest import PublishedManifest
from edgefolio.repository import Repository
from edgefolio_edge.triton.placement import Placement

#: 2.3 MB of weights in each of three layers.
WIDTH = 256
SWITCHES = 40


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with two variants of 7 MB."""
    repository = tmp_path_factory.mktemp("published") / "portfolios"
    manifest = publish(repository, [revealing_model(tag, width=WIDTH, layers=4) for tag in (1, 2)])
    assert all(variant.size_bytes > 7e6 for variant in manifest.variants)
    yield from open_site(tmp_path_factory.mktemp("site"), manifest, repository)


def footprint(site: Site) -> dict[str, int]:
    """Bytes that the server holds: resident, in shared memory, in its temporary folder; and its file descriptors."""
    # The variant before may still be on its way out.
    deadline = time.monotonic() + 30
    while len(site.server.stubs()) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    process = psutil.Process(site.server.identity.pid)
    everyone = (process, *process.children(recursive=True))
    memory = sum(entry.memory_info().rss for entry in everyone)
    regions = Path("/dev/shm").glob(f"{site.server.shared_memory_prefix}*")
    files = [path for path in site.server.runtime.rglob("*") if path.is_file() and path.name != "triton.log"]
    return {
        "resident": memory,
        "shared": sum(path.stat().st_blocks * 512 for path in regions),
        "temporary": sum(path.stat().st_size for path in files),
        "descriptors": process.num_fds(),
        "processes": len(everyone),
    }


def test_forty_switches_leave_nothing_behind(heavy: Site) -> None:
    client = triton_grpc.InferenceServerClient(heavy.server.grpc_endpoint)
    tensor = triton_grpc.InferInput("image", [1, 1, 12, 12], "FP32")
    tensor.set_data_from_numpy(images())

    def switches(count: int) -> None:
        for number in range(count):
            heavy.serve(1 + number % 2)
            assert revealed_tag(client.infer(MODEL, [tensor]).as_numpy("logits")) == 1 + number % 2

    # Allocators take their share first.
    switches(10)
    before = footprint(heavy)
    switches(SWITCHES)
    after = footprint(heavy)
    client.close()
    assert after["shared"] == before["shared"]
    assert after["temporary"] == before["temporary"]
    assert after["processes"] == before["processes"]
    assert after["descriptors"] <= before["descriptors"] + 2
    # A leak of one variant in each switch would be 280 MB.
    assert after["resident"] < 1.05 * before["resident"] + (4 << 20), (before, after)


def test_a_slow_request_is_answered_by_its_version_while_three_revisions_come_and_go(tmp_path: Path) -> None:
    repository = tmp_path / "portfolios"
    slow = publish(repository, [revealing_model(1, width=64, layers=4)])
    for site in open_site(tmp_path / "site", slow, repository):
        site.serve(1)
        batch = images(64)
        answers: list[tuple[int, int]] = []

        def ask(
            site: Site = site, batch: NDArray[np.float32] = batch, answers: list[tuple[int, int]] = answers
        ) -> None:
            client = triton_grpc.InferenceServerClient(site.server.grpc_endpoint)
            tensor = triton_grpc.InferInput("image", list(batch.shape), "FP32")
            tensor.set_data_from_numpy(batch)
            for _ in range(30):
                result = client.infer(MODEL, [tensor])
                version = int(result.get_response().model_version)
                answers.append((version, revealed_tag(result.as_numpy("logits"))))
            client.close()

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        expected = {101: 1}
        for tag in (2, 3, 4):
            manifest = publish(repository, [revealing_model(tag, width=64, layers=4)])
            expected[manifest.version_of(manifest.variants[0])] = tag
            _serve_and_forget_older(site, Placement(manifest=manifest, variant=manifest.variants[0]), repository)
        for thread in threads:
            thread.join(timeout=120)
        assert len(answers) == 90
        assert all(expected[version] == tag for version, tag in answers)
        assert 101 in {version for version, _ in answers}
        assert [path.name for path in site.store.model_directory.iterdir() if path.is_dir()] == ["401"]


def _serve_and_forget_older(site: Site, placement: Placement, repository: Path) -> None:
    """What an agent does with a new revision: fetch, switch, and remove the files of the revisions before."""
    store = site.store
    store.fetch(Repository.open(str(repository)), placement.manifest, placement.variant)
    store.manifests.keep(PublishedManifest.of(placement.manifest), complete=True)
    outcome = site.switcher.switch(placement)
    assert outcome.succeeded, outcome.cause
    store.keep_only([placement.manifest.revision], served_versions=[placement.version])
