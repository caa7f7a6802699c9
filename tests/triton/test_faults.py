"""What goes wrong on a real Triton, and what users notice of it: nothing, or as little as can be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from triton_load import Clients, failed, wrong
from triton_portfolios import MODEL, images, revealed_tag, revealing_model
from triton_remains import remains_of
from triton_site import Site

from edgefolio.decision.types import ServerState
from edgefolio.specification.serving import Switching
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.probe import backend_probe
from edgefolio_edge.models.triton_configuration import configuration_of
from edgefolio_edge.observation.observer import Observer
from edgefolio_edge.triton.client import ControlError
from edgefolio_edge.triton.processes import stub_of_version
from edgefolio_edge.triton.switcher import Switcher

TAGS = {f"variant-{rank}": rank for rank in (1, 2, 3, 4)}
#: A version that no revision has: what is put there reaches Triton without our verification.
INTRUDER = 999


def _intrude(site: Site, fill: Callable[[Path], None]) -> ControlError:
    """Make Triton load what ``fill`` writes, unverified, while clients ask. Returns Triton's refusal."""
    site.serve(2)
    directory = site.store.version_directory(INTRUDER)
    directory.mkdir()
    try:
        fill(directory)
        configuration = configuration_of(site.manifest, model_name=MODEL, threads=1, versions=[INTRUDER])
        with Clients(site.server.grpc_endpoint, site.server.http_endpoint, model=MODEL, grpc=1, http=1) as clients:
            clients.wait_for(20)
            with pytest.raises(ControlError) as refusal:
                site.control.load(MODEL, configuration)
            clients.wait_for(len(clients.requests()) + 20)
    finally:
        shutil.rmtree(directory)
    requests = clients.requests()
    assert failed(requests) == []
    assert wrong(requests, site.manifest, TAGS) == []
    assert {request.version for request in requests} == {102}
    # A refused load is forgotten by the next good one.
    site.serve(3)
    site.serve(2)
    return refusal.value


def _with_probe(site: Site, raw: bytes) -> Callable[[Path], None]:
    def fill(directory: Path) -> None:
        (directory / "model.onnx").write_bytes(raw)
        (directory / "probe.json").write_bytes(backend_probe(site.manifest, site.manifest.variants[2]))

    return fill


def test_a_truncated_model_that_reaches_triton_is_refused_and_the_old_serves_on(site: Site) -> None:
    raw = revealing_model(3, width=12)
    refusal = _intrude(site, _with_probe(site, raw[: len(raw) // 2]))
    assert "onnx" in str(refusal).lower()


def test_a_corrupt_model_that_reaches_triton_is_refused_and_the_old_serves_on(site: Site) -> None:
    raw = bytearray(revealing_model(3, width=12))
    raw[40:140] = os.urandom(100)
    _intrude(site, _with_probe(site, bytes(raw)))


def test_a_model_with_other_weights_is_refused_by_its_probe(site: Site) -> None:
    refusal = _intrude(site, _with_probe(site, revealing_model(4, width=16)))
    assert "probe: output logits differs by" in str(refusal)


def test_a_model_with_another_input_name_is_refused(site: Site) -> None:
    refusal = _intrude(site, _with_probe(site, revealing_model(3, width=12, input_name="picture")))
    assert "image" in str(refusal)


def test_a_model_without_a_probe_is_refused(site: Site) -> None:
    raw = revealing_model(3, width=12)
    refusal = _intrude(site, lambda directory: directory.joinpath("model.onnx").write_bytes(raw))
    assert "no probe beside the model" in str(refusal)


def test_an_empty_version_directory_is_refused(site: Site) -> None:
    _intrude(site, lambda _directory: None)


def test_a_version_that_is_not_on_disk_is_refused(site: Site) -> None:
    site.serve(2)
    with pytest.raises(ControlError, match="version"):
        site.control.load(MODEL, configuration_of(site.manifest, model_name=MODEL, threads=1, versions=[12345]))
    assert site.switcher.canary(site.placement(2)) is None


def test_an_impossible_configuration_is_refused(site: Site) -> None:
    site.serve(2)
    configuration = configuration_of(site.manifest, model_name=MODEL, threads=1, versions=[103])
    configuration.max_batch_size = -1
    with pytest.raises(ControlError):
        site.control.load(MODEL, configuration)
    assert site.switcher.canary(site.placement(2)) is None


def test_a_damaged_local_copy_never_reaches_triton(site: Site) -> None:
    site.serve(2)
    path = site.store.path_of(site.manifest, site.manifest.variants[0])
    good = path.read_bytes()
    stubs = {stub.pid for stub in site.server.stubs()}
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        outcome = site.switcher.switch(site.placement(1), previous=site.placement(2))
    finally:
        path.write_bytes(good)
    assert "missing or damaged" in str(outcome.cause)
    assert outcome.restored is True
    assert outcome.load_milliseconds == 0
    assert {stub.pid for stub in site.server.stubs()} <= stubs
    assert site.control.infer(MODEL, {"image": images()}).version == 102
    site.serve(1)


def test_a_failed_switch_goes_back_to_the_previous_variant(site: Site) -> None:
    """The backend refuses at load: the published probe does not fit the published bytes."""
    site.serve(2)
    target = site.placement(3)
    probe = target.variant.probe.model_copy(update={"outputs": site.manifest.variants[3].probe.outputs})
    variant = target.variant.model_copy(update={"probe": probe})
    variants = (*site.manifest.variants[:2], variant, site.manifest.variants[3])
    lying = site.manifest.model_copy(update={"variants": variants})
    directory = site.store.version_directory(103)
    (directory / "probe.json").write_bytes(backend_probe(lying, variant))
    store = ModelStore(site.store.root, model=MODEL)
    try:
        outcome = Switcher(site.control, store).switch(
            type(target)(manifest=lying, variant=variant), previous=site.placement(2)
        )
    finally:
        (directory / "probe.json").write_bytes(backend_probe(site.manifest, target.variant))
    assert "probe: output logits differs by" in str(outcome.cause)
    assert outcome.restored is True
    assert site.control.infer(MODEL, {"image": images()}).version == 102


def test_concurrent_loads_end_with_one_version_that_answers(site: Site) -> None:
    site.serve(1)
    controls = [site.server.control() for _ in range(4)]
    threads = [
        threading.Thread(
            target=control.load,
            args=(MODEL, configuration_of(site.manifest, model_name=MODEL, threads=1, versions=[100 + rank])),
        )
        for rank, control in enumerate(controls, start=1)
    ]
    with Clients(site.server.grpc_endpoint, site.server.http_endpoint, model=MODEL, grpc=1, http=1) as clients:
        clients.wait_for(10)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clients.wait_for(len(clients.requests()) + 10)
    for control in controls:
        control.close()
    assert failed(clients.requests()) == []
    assert wrong(clients.requests(), site.manifest, TAGS) == []
    answer = site.control.infer(MODEL, {"image": images()})
    assert answer.version == 100 + revealed_tag(answer.outputs["logits"])
    # One writer brings it where it should be, whatever the race left.
    site.serve(2)
    assert site.control.infer(MODEL, {"image": images()}).version == 102


def test_a_killed_backend_is_found_by_inference_and_repaired(site: Site) -> None:
    site.serve(3)
    observer = Observer(site.server.endpoint(), site.control, site.switcher, switching=Switching())
    active = site.placement(3)
    assert observer.observe(active, resident=()).server is ServerState.SERVING
    stub = stub_of_version(site.server.identity, 103)
    assert stub is not None
    stub.kill()
    # Triton itself believes that all is well, for ever.
    assert site.control.is_live()
    assert site.control.ready_versions(MODEL) == (103,)
    with pytest.raises(ControlError, match="not healthy"):
        site.control.infer(MODEL, {"image": images()})
    assert observer.observe(active, resident=()).server is ServerState.DEAD
    outcome = site.switcher.repair(active)
    assert outcome.succeeded, outcome
    observer.forget()
    assert observer.observe(active, resident=()).server is ServerState.SERVING
    assert revealed_tag(site.control.infer(MODEL, {"image": images()}).outputs["logits"]) == 3
    # And switching goes on from there.
    site.serve(1)
    site.serve(3)
    observer.close()


def test_full_shared_memory_refuses_the_new_variant_and_the_old_serves_on(site: Site, tmp_path: Path) -> None:
    """In a mount namespace of its own, with room for one backend alone."""
    probe = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"],
        capture_output=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip("mounting a small /dev/shm needs privileges: " + probe.stderr.decode().strip())
    script = tmp_path / "small.py"
    script.write_text(_SECOND_FAILS)
    command = f"mount -t tmpfs -o size=1536k tmpfs /dev/shm && exec {sys.executable} {script} {site.store.root}"
    finished = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["first", "True", "second", "False", "restored", "True", "serves", "101"]


def test_an_unreadable_version_is_refused_and_the_old_serves_on(site: Site, tmp_path: Path) -> None:
    """Without the right to read everything, which root has and an agent in a container has not."""
    unprivileged = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    script = tmp_path / "unreadable.py"
    script.write_text(_SECOND_FAILS)
    folder = site.store.model_repository / MODEL / "102"
    before = folder.stat().st_mode
    folder.chmod(0o000)
    try:
        command = [*unprivileged, sys.executable, str(script), str(site.store.root)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    finally:
        folder.chmod(before)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["first", "True", "second", "False", "restored", "True", "serves", "101"]


_SECOND_FAILS = """
import sys
from pathlib import Path
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.triton.placement import Placement
from edgefolio_edge.triton.switcher import Switcher
from edgefolio_edge.triton.launcher.ports import Ports
from edgefolio_edge.triton.launcher.command_line import ServerSettings
from edgefolio_edge.triton.launcher.server import TritonServer

store = ModelStore(Path(sys.argv[1]), model="revealing")
manifest = store.manifests.of_version(101)
server = TritonServer.start(
    ServerSettings(model_repository=store.model_repository, ports=Ports(http=0, grpc=0, metrics=0))
)
try:
    control = server.control()
    switcher = Switcher(control, store)
    first, second = (Placement(manifest=manifest, variant=variant) for variant in manifest.variants[:2])
    print("first", switcher.switch(first).succeeded)
    outcome = switcher.switch(second, previous=first)
    print("second", outcome.succeeded, "restored", outcome.restored)
    inputs = {"image": __import__("numpy").zeros((1, 1, 12, 12), "float32")}
    print("serves", control.infer("revealing", inputs).version)
    control.close()
finally:
    server.stop()
"""


def test_a_killed_server_leaves_nothing_once_it_is_stopped(site: Site) -> None:
    """Its stubs and its shared memory are known to be ours although the server can no longer say so."""
    second = type(site.server).start(site.server.settings)
    control = second.control()
    Switcher(control, site.store).switch(site.placement(1))
    control.close()
    assert second.stubs()
    second.identity.kill()
    assert not second.is_alive()
    second.stop()
    assert remains_of(second) == ()
    # The other server was not touched.
    assert site.server.is_alive()
    assert site.server.stubs()


def test_stopping_waits_for_a_request_in_flight(site: Site) -> None:
    second = type(site.server).start(site.server.settings)
    control = second.control()
    assert Switcher(control, site.store).switch(site.placement(4)).succeeded
    control.close()
    with Clients(second.grpc_endpoint, second.http_endpoint, model=MODEL, grpc=1, http=0) as clients:
        clients.wait_for(10)
        second.stop()
        time.sleep(0.1)
    answers = [request for request in clients.requests() if request.error is None]
    assert len(answers) >= 10
    assert remains_of(second) == ()
