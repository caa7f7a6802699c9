"""The end of a pod: what the kubelet runs in Triton's container, with clients whose connections do not end."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as triton_grpc
from triton_portfolios import MODEL, images, publish, revealed_tag, revealing_model

from edgefolio.contract import pod
from edgefolio.repository import Repository
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.triton.client import AccessKey, TritonControl
from edgefolio_edge.triton.launcher.command_line import LOOPBACK
from edgefolio_edge.triton.launcher.ports import Ports, settle_ports
from edgefolio_edge.triton.launcher.wheel import environment_for, lay_out_backends, lay_out_python, locate_wheel
from edgefolio_edge.triton.placement import Placement
from edgefolio_edge.triton.switcher import Switcher
from edgefolio_operator.resources.pruning_job import Images
from edgefolio_operator.resources.triton_pod import build_pod

KEY = AccessKey(name="edgefolio-key", secret="0" * 48)
NO_MODEL = "no available versions"


def address_of_machine() -> str:
    """An address that is not loopback's, as those of clients are."""
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            if entry.family.name == "AF_INET" and not entry.address.startswith("127."):
                return entry.address
    pytest.skip("this machine has loopback alone")


class Container:
    """Triton's container without a container: its command and its hook, in folders and on ports of the test's."""

    def __init__(self, folder: Path) -> None:
        self.ports = settle_ports(Ports(http=None, grpc=0, metrics=0), address="0.0.0.0")
        document = {
            "metadata": {"name": "digits", "namespace": "models"},
            "spec": {"repository": {"uri": "s3://bucket/portfolios"}, "serving": {"modelName": MODEL}},
        }
        built = build_pod(
            ModelPortfolio.model_validate(
                {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", **document}
            ),
            images=Images(pruner="p", agent="a", triton="t"),
            http=False,
        )
        (self._container,) = built["containers"]
        self._folder = folder
        for name in ("health", "key", "models", "shared-memory", "bin"):
            (folder / name).mkdir()
        (folder / "key" / "key").write_text(f"{KEY.name}={KEY.secret}")
        wheel = locate_wheel()
        backends = lay_out_backends(wheel, folder / "backends")
        self._environment = environment_for(
            wheel, threads=1, executables=lay_out_python(folder / "python"), temporary=folder
        )
        program = folder / "bin" / "tritonserver"
        program.write_text(
            f'#!/bin/sh\nexec {shlex.quote(str(wheel.server))} "$@" --backend-directory={shlex.quote(str(backends))}\n'
        )
        program.chmod(0o755)
        self._environment["PATH"] = f"{program.parent}:{self._environment.get('PATH', os.environ['PATH'])}"
        self.models = folder / "models"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, as the first process of its own namespace, and wait until Triton answers."""
        apart = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"] if os.geteuid() == 0 else []
        command = [*apart, *map(self._here, self._container["command"])]
        with (self._folder / "triton.log").open("wb") as log:
            self.process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        control = self.control()
        end = time.monotonic() + 60
        while not control.is_live():
            assert self.process.poll() is None, (self._folder / "triton.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.1)
        control.close()

    def control(self) -> TritonControl:
        return TritonControl(f"{LOOPBACK}:{self.ports.grpc}", key=KEY)

    def drain(self, *, seconds: int, late: int) -> float:
        """Run its hook with these times; how long it took."""
        *shell, script = self._container["lifecycle"]["preStop"]["exec"]["command"]
        script = self._here(script).replace("sleep 20\n", f"sleep {seconds}\n").replace("-lt 20 ", f"-lt {late} ")
        began = time.monotonic()
        subprocess.run([*shell, script], check=True)
        return time.monotonic() - began

    def end(self) -> None:
        """Tell it to end, as the kubelet does after the hook, and wait until it has."""
        assert self.process is not None
        first = psutil.Process(self.process.pid)
        (first.children() or [first])[0].terminate()
        self.process.wait(timeout=60)

    def _here(self, text: str) -> str:
        """``text`` of the pod, for this machine."""
        for there, here in (
            (pod.HEALTH_MOUNT, self._folder / "health"),
            (pod.SHARED_MEMORY_MOUNT, self._folder / "shared-memory"),
            (pod.KEY_FILE, self._folder / "key" / "key"),
            (f"={pod.MODELS_MOUNT}", f"={self.models}"),
            (f"--grpc-port={pod.GRPC_PORT}", f"--grpc-port={self.ports.grpc}"),
            (f"--metrics-port={pod.METRICS_PORT}", f"--metrics-port={self.ports.metrics}"),
            (f"{pod.GRPC_PORT:04X}", f"{self.ports.grpc:04X}"),
            # Timers of connections that stand still, as after the clock was set back.
            ("--grpc-max-connection-age=15000", "--grpc-max-connection-age=3600000"),
        ):
            text = text.replace(there, str(here))
        return text


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    """Triton's container, which serves variant 2 of two."""
    container = Container(tmp_path)
    repository = tmp_path / "portfolios"
    manifest = publish(repository, [revealing_model(1), revealing_model(2, width=64, layers=6)])
    store = ModelStore(tmp_path / "state", model=MODEL, model_repository=container.models)
    for variant in manifest.variants:
        store.fetch(Repository.open(str(repository)), manifest, variant)
    container.start()
    control = container.control()
    try:
        done = Switcher(control, store).switch(Placement(manifest=manifest, variant=manifest.variants[1]))
        assert done.succeeded, done
        control.close()
        yield container
    finally:
        if container.process is not None and container.process.poll() is None:
            container.process.kill()
            container.process.wait()


class Client:
    """One that asks all the time over one connection, and keeps it."""

    def __init__(self, endpoint: str) -> None:
        self._client = triton_grpc.InferenceServerClient(endpoint)
        self._stop = threading.Event()
        self.answers: list[int] = []
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()
        while not self.answers:
            assert not self.errors, self.errors
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def _ask(self) -> None:
        tensor = triton_grpc.InferInput("image", [1, 1, 12, 12], "FP32")
        tensor.set_data_from_numpy(images())
        while not self._stop.is_set():
            try:
                found = self._client.infer(MODEL, [tensor], client_timeout=10).as_numpy("logits")
                self.answers.append(revealed_tag(found))
            except Exception as error:
                self.errors.append(str(error))
            time.sleep(0.02)


def test_who_is_still_connected_is_served_until_the_end(container: Container) -> None:
    with Client(f"{address_of_machine()}:{container.ports.grpc}") as client:
        # It is waited for, in vain, and served meanwhile.
        assert container.drain(seconds=1, late=2) >= 3
        assert client.errors == []
        asked = len(client.answers)
        container.end()
        time.sleep(0.5)
    assert asked > 50
    assert set(client.answers) == {2}
    # Its connection ends with the server: it can go to another one, and is never told that there is no model.
    assert client.errors
    assert [error for error in client.errors if NO_MODEL in error] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="the shell would see the processes of others, busy ones among them")
def test_a_request_under_way_is_answered_before_the_container_ends(container: Container) -> None:
    client = triton_grpc.InferenceServerClient(f"{address_of_machine()}:{container.ports.grpc}")
    many = images(64)
    tensor = triton_grpc.InferInput("image", list(many.shape), "FP32")
    tensor.set_data_from_numpy(many)
    client.infer(MODEL, [tensor])
    under_way = client.async_infer(MODEL, [tensor], callback=lambda result, error: found.append(error or result))
    found: list[object] = []
    assert container.process is not None
    triton = psutil.Process(container.process.pid)
    while not any(task.status() == psutil.STATUS_RUNNING for task in triton.children(recursive=True)):
        time.sleep(0.001)
    container.end()
    end = time.monotonic() + 10
    while not found and time.monotonic() < end:
        time.sleep(0.01)
    assert under_way is not None
    assert isinstance(found[0], triton_grpc.InferResult), found
    client.close()


def test_nobody_waits_for_the_agent(container: Container) -> None:
    with Client(f"{LOOPBACK}:{container.ports.grpc}"):
        assert container.drain(seconds=1, late=30) < 20


def test_a_server_that_serves_nobody_is_not_drained(container: Container, tmp_path: Path) -> None:
    (tmp_path / "health" / pod.RESTART).touch()
    with Client(f"{address_of_machine()}:{container.ports.grpc}"):
        assert container.drain(seconds=30, late=30) < 20


def test_a_server_that_ends_by_itself_ends_its_container(container: Container) -> None:
    assert container.process is not None
    for process in psutil.Process(container.process.pid).children(recursive=True):
        if process.name() == "tritonserver":
            process.kill()
    assert container.process.wait(timeout=30) != 0
