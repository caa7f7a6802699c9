"""Operator, agent, Triton, API server and object storage, all real; only the pod around the agent is missing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "triton"))

from cluster_site import Operator, Site, wait_for
from triton_pod import Pod
from triton_portfolios import MODEL, publish, revealing_model

from edgefolio.contract.job_report import PublishedReport
from edgefolio.manifest import Manifest, sha256_of

pytestmark = pytest.mark.slow


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

    @property
    def published(self) -> Path:
        """The folder behind ``s3://bucket/portfolios``."""
        return self.folder / "bucket" / "portfolios"

    def model(self, revision: int, rank: int) -> Path:
        return self.published / "models" / MODEL / f"{revision}{rank:02d}" / "model.onnx"

    def manifest(self, revision: int) -> Path:
        return self.published / "revisions" / MODEL / f"{revision}.json"


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


@pytest.fixture
def pod(namespace: Any, store: ObjectStore, tmp_path: Path) -> Iterator[Pod]:
    """A pod on a node of the first name that a site gives."""
    name = f"digits-{namespace.namespace}-edge-1"
    made = Pod(
        tmp_path / "pod",
        {
            **store.environment,
            "KUBECONFIG": str(namespace.kubeconfig),
            "POD_NAME": name,
            "POD_NAMESPACE": namespace.namespace,
        },
    )
    yield made
    made.end()


class Endpoint:
    """The pod's ModelEndpoint, with the test in the operator's place."""

    def __init__(self, namespace: Any, pod: Pod) -> None:
        self._namespace = namespace
        self.name = pod.environment["POD_NAME"]

    def order(self, manifest: Manifest, target: str, *, digest: str | None = None, **switching: Any) -> None:
        spec = {
            "portfolioRef": {"name": "digits"},
            "podName": self.name,
            "nodeName": "edge-1",
            "modelName": MODEL,
            "repositoryURI": "s3://bucket/portfolios",
            "revision": {
                "number": manifest.revision,
                "manifestDigest": digest or sha256_of(manifest.to_bytes()),
            },
            "targetVariant": target,
            "switching": switching,
        }
        head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": {"name": self.name}}
        self._namespace.apply({**head, "spec": spec}, manager="edgefolio-operator")

    def status(self) -> dict[str, Any]:
        path = self._namespace.path("edgefolio.dev/v1alpha1", "ModelEndpoint", self.name)
        found: dict[str, Any] = self._namespace.request("GET", path).get("status", {})
        return found

    def condition(self, kind: str) -> tuple[str, str, str]:
        for entry in self.status().get("conditions", ()):
            if entry["type"] == kind:
                return entry["status"], entry["reason"], entry.get("message", "")
        return "", "", ""


def report_of(manifest: Manifest) -> PublishedReport:
    return PublishedReport.of(manifest, digest=sha256_of(manifest.to_bytes()))


def test_an_agent_obeys_reports_and_survives(
    namespace: Any, start: Callable[..., Operator], store: ObjectStore, pod: Pod
) -> None:
    manifest = publish(store.published, [revealing_model(tag) for tag in (1, 2)])
    start()
    site = Site(namespace, nodes=1)
    name = f"digits-{site.nodes[0]}"
    site.portfolio(serving={"modelName": MODEL})
    site.end_job(report_of(manifest))
    wait_for(lambda: site.target(0) == "variant-2")
    pod.start_agent()
    wait_for(lambda: pod.says("synced"), seconds=60)
    pod.start_triton()
    wait_for(lambda: site.endpoint(0).get("status", {}).get("activeVariant") == "variant-2", seconds=60)
    assert pod.answered_by() == 2
    wait_for(lambda: site.condition("Ready") == ("True", "Serving"))

    # The operator's word reaches the clients.
    namespace.kubectl("annotate", "pod", name, "edgefolio.dev/pin-variant=variant-1")
    wait_for(lambda: site.endpoint(0)["status"].get("activeVariant") == "variant-1", seconds=60)
    assert pod.answered_by() == 1
    assert site.endpoint(0)["status"]["decision"]["reason"] == "Pinned", "a person did"

    # A killed agent's Triton serves on, and the next agent goes on from what is.
    pod.kill_agent()
    assert pod.answered_by() == 1
    assert pod.says("serving")
    namespace.kubectl("annotate", "pod", name, "edgefolio.dev/pin-variant-")
    wait_for(lambda: not site.endpoint(0)["spec"].get("pinned"))
    pod.start_agent()
    generation = site.endpoint(0)["metadata"]["generation"]
    wait_for(lambda: site.endpoint(0)["status"]["observedGeneration"] >= generation, seconds=60)

    # A quiet endpoint is not written: for five seconds not at all, once the last order is acknowledged.
    def unwritten() -> bool:
        before = site.endpoint(0)
        time.sleep(5)
        acknowledged = before["status"]["observedGeneration"] == before["metadata"]["generation"]
        return acknowledged and bool(site.endpoint(0)["metadata"] == before["metadata"])

    wait_for(unwritten, seconds=25)


def test_an_order_is_carried_out_at_once(namespace: Any, store: ObjectStore, pod: Pod) -> None:
    manifest = publish(store.published, [revealing_model(tag) for tag in (1, 2)])
    endpoint = Endpoint(namespace, pod)
    endpoint.order(manifest, "variant-1", observeSeconds="25")
    pod.start_triton()
    pod.start_agent()
    pod.wait_until(lambda: pod.says("serving"))
    # It looks around every 25 s, and does not wait for that.
    endpoint.order(manifest, "variant-2", observeSeconds="25")
    assert pod.wait_until(lambda: pod.answered_by() == 2) < 10
    wait_for(lambda: endpoint.status().get("activeVariant") == "variant-2", seconds=10)


def test_what_is_told_before_anything_serves(namespace: Any, store: ObjectStore, pod: Pod) -> None:
    manifest = publish(store.published, [revealing_model(tag) for tag in (1, 2)])
    endpoint = Endpoint(namespace, pod)
    endpoint.order(manifest, "variant-2")
    pod.environment["EDGEFOLIO_STORAGE_LIMIT"] = "4096"
    pod.start_agent()
    wait_for(lambda: endpoint.condition("Synced")[:2] == ("False", "InsufficientStorage"), seconds=60)
    assert "storage.sizeLimit" in endpoint.condition("Synced")[2]
    assert endpoint.condition("Ready")[:2] == ("False", "NothingSynced")
    assert endpoint.status()["lastFailure"]["reason"] == "InsufficientStorage"
    assert endpoint.status()["lastFailure"]["revision"] == 1
    assert not pod.says("synced"), "Triton is not started for nothing"
    pod.kill_agent()
    del pod.environment["EDGEFOLIO_STORAGE_LIMIT"]
    pod.start_agent()
    wait_for(lambda: endpoint.condition("Synced")[:2] == ("True", "Verified"), seconds=60)
    wait_for(lambda: endpoint.condition("Ready")[:2] == ("False", "ServerUnreachable"))
    pod.start_triton()
    wait_for(lambda: endpoint.condition("Ready")[:2] == ("True", "Serving"), seconds=60)


def _swapped(store: ObjectStore, revision: int) -> str | None:
    store.model(revision, 2).write_bytes(store.model(revision, 1).read_bytes())
    return None


def _flipped(store: ObjectStore, revision: int) -> str | None:
    raw = store.model(revision, 2).read_bytes()
    store.model(revision, 2).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    return None


def _truncated(store: ObjectStore, revision: int) -> str | None:
    raw = store.model(revision, 2).read_bytes()
    store.model(revision, 2).write_bytes(raw[: len(raw) // 2])
    return None


def _half_uploaded(store: ObjectStore, revision: int) -> str | None:
    store.model(revision, 2).unlink()
    return None


def _tampered(store: ObjectStore, revision: int) -> str | None:
    manifest = store.manifest(revision)
    manifest.write_bytes(manifest.read_bytes().replace(b'"seed": 0', b'"seed": 1').replace(b'"seed":0', b'"seed":1'))
    return None


def _leaving(store: ObjectStore, revision: int) -> str:
    """Whoever made it vouches for it: only the path in it is wrong."""
    manifest = store.manifest(revision)
    raw = manifest.read_bytes().replace(f"{revision}02/model.onnx".encode(), b"../../../../etc/passwd")
    manifest.write_bytes(raw)
    return sha256_of(raw)


def _without_manifest(store: ObjectStore, revision: int) -> str | None:
    store.manifest(revision).unlink()
    return None


def test_nothing_that_is_not_vouched_for_is_served(namespace: Any, store: ObjectStore, pod: Pod) -> None:
    """While revision 1 serves, one bad revision after the other is ordered; the condition names what is wrong."""
    first = publish(store.published, [revealing_model(tag) for tag in (1, 2)])
    endpoint = Endpoint(namespace, pod)
    endpoint.order(first, "variant-2")
    triton = pod.start_triton()
    pod.start_agent()
    pod.wait_until(lambda: pod.says("serving"))
    control = triton.control()
    bad: list[tuple[Callable[[ObjectStore, int], str | None], str, str]] = [
        (_swapped, "Refused", "202/model.onnx: the file"),
        (_flipped, "Refused", "302/model.onnx: the file's digest is"),
        (_truncated, "Refused", "402/model.onnx: the file has"),
        (_half_uploaded, "Refused", "502/model.onnx: the file is missing"),
        (_tampered, "Refused", f"revisions/{MODEL}/6.json"),
        (_leaving, "Refused", f"revisions/{MODEL}/7.json"),
        (_without_manifest, "Unreachable", "no revision 8"),
    ]
    for tag, (damage, reason, text) in enumerate(bad, start=10):
        manifest = publish(store.published, [revealing_model(tag), revealing_model(tag + 1)])
        digest = damage(store, manifest.revision)
        endpoint.order(manifest, "variant-2", digest=digest)
        wait_for(lambda text=text: text in endpoint.condition("Synced")[2], seconds=60)
        assert endpoint.condition("Synced")[:2] == ("False", reason), damage
        assert endpoint.condition("Ready")[:2] == ("True", "Serving"), damage
        if reason == "Refused":
            assert endpoint.status()["lastFailure"]["revision"] == manifest.revision
        assert control.ready_versions(MODEL) == (102,), damage
        assert pod.answered_by() == 2
        assert not (pod.models / MODEL / f"{manifest.revision}02").exists()
    control.close()
    good = publish(store.published, [revealing_model(tag) for tag in (5, 6)])
    endpoint.order(good, "variant-2")
    wait_for(lambda: endpoint.condition("Synced")[:2] == ("True", "Verified"), seconds=60)
    wait_for(lambda: pod.answered_by() == 6, seconds=60)


def test_a_first_revision_with_swapped_bytes_serves_what_is_sound(namespace: Any, store: ObjectStore, pod: Pod) -> None:
    manifest = publish(store.published, [revealing_model(tag) for tag in (1, 2)])
    _swapped(store, 1)
    endpoint = Endpoint(namespace, pod)
    endpoint.order(manifest, "variant-2")
    pod.start_triton()
    pod.start_agent()
    wait_for(lambda: endpoint.status().get("activeVariant") == "variant-1", seconds=60)
    assert pod.answered_by() == 1
    status, reason, message = endpoint.condition("Synced")
    assert (status, reason) == ("False", "Refused")
    assert "102/model.onnx" in message
    assert endpoint.status()["lastFailure"]["reason"] == "RevisionRefused"
