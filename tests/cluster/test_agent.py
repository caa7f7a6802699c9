"""Operator, agent, Triton, API server and object storage, all real; only the pod around the agent is missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "triton"))

import tritonclient.http as triton_http
from cluster_site import Operator, Site, wait_for
from triton_portfolios import MODEL, images, publish, revealed_tag, revealing_model

from edgefolio.job_report import PublishedReport
from edgefolio.manifest import Manifest, sha256_of
from edgefolio_edge.triton.ports import Ports
from edgefolio_edge.triton.server import ServerSettings, TritonServer

pytestmark = pytest.mark.slow
FREE_PORTS = Ports(http=0, grpc=0, metrics=0)


class ObjectStore:
    """An S3 server over a folder."""

    def __init__(self, binaries: Path, folder: Path, port: int) -> None:
        self.folder = folder
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        (folder / "bucket").mkdir(parents=True)
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", binaries / "versitygw", "--port", f"127.0.0.1:{port}", "posix", folder],
            env={**os.environ, "ROOT_ACCESS_KEY": "test", "ROOT_SECRET_KEY": "test-secret"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: _listens(port))


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def store(namespace: Any, tmp_path: Path, unused_ports: Callable[[int], list[int]]) -> Iterator[ObjectStore]:
    if not (namespace.binaries / "versitygw").exists():
        pytest.skip("versitygw not built; once: tests/cluster/bed/build.sh nodes")
    made = ObjectStore(namespace.binaries, tmp_path / "s3", unused_ports(1)[0])
    yield made
    made.process.kill()
    made.process.wait()


class Pod:
    """What would run in one pod: Triton, and the agent beside it."""

    def __init__(self, namespace: Any, store: ObjectStore, folder: Path, name: str) -> None:
        self.models, self.state, self.key = folder / "models", folder / "state", folder / "key"
        self.models.mkdir()
        self.triton = TritonServer.start(ServerSettings(model_repository=self.models, ports=FREE_PORTS))
        self.key.write_text(f"{self.triton.key.name}={self.triton.key.secret}")
        self.log = folder / "agent.log"
        self.environment = {
            **os.environ,
            **store.environment,
            "KUBECONFIG": str(namespace.kubeconfig),
            "POD_NAME": name,
            "POD_NAMESPACE": namespace.namespace,
            "EDGEFOLIO_MODELS": str(self.models),
            "EDGEFOLIO_STATE": str(self.state),
            "EDGEFOLIO_KEY_FILE": str(self.key),
            "EDGEFOLIO_TRITON": f"grpc://{self.triton.grpc_endpoint}",
            "EDGEFOLIO_TRITON_METRICS": self.triton.metrics_endpoint,
        }
        self.agent = self.start_agent()

    def start_agent(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "edgefolio_edge.cluster"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def answered_by(self) -> int:
        """The tag of the variant that answers a client that names no version."""
        tensor = triton_http.InferInput("image", [1, 1, 12, 12], "FP32")
        tensor.set_data_from_numpy(images())
        with triton_http.InferenceServerClient(self.triton.http_endpoint) as client:
            return revealed_tag(client.infer(MODEL, [tensor]).as_numpy("logits"))

    def end(self) -> None:
        if self.agent.poll() is None:
            self.agent.terminate()
        try:
            assert self.agent.wait(timeout=30) in (0, -signal.SIGKILL), self.log.read_text()
        finally:
            self.agent.kill()
            self.triton.stop()
            print(self.log.read_text())


def report_of(manifest: Manifest) -> PublishedReport:
    return PublishedReport.of(manifest, digest=sha256_of(manifest.to_bytes()))


def test_an_agent_obeys_reports_and_survives(
    namespace: Any, start: Callable[..., Operator], store: ObjectStore, tmp_path: Path
) -> None:
    manifest = publish(store.folder / "bucket" / "portfolios", [revealing_model(tag) for tag in (1, 2)])
    start()
    site = Site(namespace, nodes=1)
    name = f"digits-{site.nodes[0]}"
    site.portfolio(serving={"modelName": MODEL})
    site.end_job(report_of(manifest))
    wait_for(lambda: site.target(0) == "variant-2")
    pod = Pod(namespace, store, tmp_path, name)
    try:
        wait_for(lambda: site.endpoint(0).get("status", {}).get("activeVariant") == "variant-2", seconds=60)
        assert pod.answered_by() == 2
        wait_for(lambda: site.condition("Ready") == ("True", "Serving"))

        # The operator's word reaches the clients.
        namespace.kubectl("annotate", "pod", name, "edgefolio.dev/pin-variant=variant-1")
        wait_for(lambda: site.endpoint(0)["status"].get("activeVariant") == "variant-1", seconds=60)
        assert pod.answered_by() == 1
        assert site.endpoint(0)["status"]["decision"]["reason"] == "Pinned"

        # A killed agent's Triton serves on, and the next agent goes on from what is.
        pod.agent.kill()
        pod.agent.wait()
        assert pod.answered_by() == 1
        namespace.kubectl("annotate", "pod", name, "edgefolio.dev/pin-variant-")
        wait_for(lambda: not site.endpoint(0)["spec"].get("pinned"))
        pod.agent = pod.start_agent()
        generation = site.endpoint(0)["metadata"]["generation"]
        wait_for(lambda: site.endpoint(0)["status"]["observedGeneration"] >= generation, seconds=60)

        # A quiet endpoint is not written every second.
        time.sleep(5)
        before = site.endpoint(0)["metadata"]["resourceVersion"]
        time.sleep(5)
        assert site.endpoint(0)["metadata"]["resourceVersion"] == before
    finally:
        pod.end()


def test_swapped_bytes_are_never_served(
    namespace: Any, start: Callable[..., Operator], store: ObjectStore, tmp_path: Path
) -> None:
    folder = store.folder / "bucket" / "portfolios"
    manifest = publish(folder, [revealing_model(tag) for tag in (1, 2)])
    (damaged,) = folder.glob("models/*/102/model.onnx")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    start()
    site = Site(namespace, nodes=1)
    site.portfolio(serving={"modelName": MODEL})
    site.end_job(report_of(manifest))
    wait_for(lambda: site.target(0) == "variant-2")
    pod = Pod(namespace, store, tmp_path, f"digits-{site.nodes[0]}")
    try:
        failure = wait_for(lambda: site.endpoint(0).get("status", {}).get("lastFailure"), seconds=60)
        assert failure["reason"] == "RevisionRefused"
        status = site.endpoint(0)["status"]
        assert status.get("activeVariant") != "variant-2"
        (synced,) = (entry for entry in status["conditions"] if entry["type"] == "Synced")
        assert (synced["status"], synced["reason"]) == ("False", "Refused")
        assert "102/model.onnx" in synced["message"]
    finally:
        pod.end()
