"""Flux' source and kustomize controllers beside a cluster, and a bucket that they take a site's manifests from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import s3fs
import yaml
from control_plane import Kubernetes, free_ports

NAMESPACE, BUCKET = "flux-system", "gitops"
_KUSTOMIZE, _SOURCE = "kustomize.toolkit.fluxcd.io/v1", "source.toolkit.fluxcd.io/v1"
_KEYS = {"accesskey": "bed", "secretkey": "bed-secret"}
_EXAMPLE = Path(__file__).parents[2] / "manifests" / "gitops" / "flux" / "portfolios.yaml"


class Flux:
    """Flux on one cluster: what lies in the bucket's folder ``portfolios`` is applied, and looked at every 5 s."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self.kubernetes = kubernetes.within(NAMESPACE)
        self._address = kubernetes.within("kube-system").kubectl("get", "service", "s3", "-ojsonpath={.spec.clusterIP}")
        # By the protocol: what is only laid on the server's disk has no ETag, and Flux then takes nothing.
        self._store = s3fs.S3FileSystem(
            key=_KEYS["accesskey"],
            secret=_KEYS["secretkey"],
            endpoint_url=f"http://{self._address}:7070",
            use_listings_cache=False,
        )
        self._left_behind: str | None = None
        self._followed = False
        if self._store.exists(BUCKET):
            self._store.rm(BUCKET, recursive=True)
        self._store.mkdir(BUCKET)

    def put(self, name: str, document: Mapping[str, Any]) -> None:
        """Commit a manifest: a file of the folder, whole."""
        self._left_behind = self._revision()
        self._store.pipe(f"{BUCKET}/portfolios/{name}.yaml", yaml.safe_dump(dict(document)).encode())

    def remove(self, name: str) -> None:
        """Take a manifest away."""
        self._left_behind = self._revision()
        self._store.rm_file(f"{BUCKET}/portfolios/{name}.yaml")

    def sync(self) -> None:
        """The source and the Kustomization of our example, with the bucket in the place of a Git repository."""
        self._apply("v1", "Secret", "bucket", stringData=_KEYS)
        source = {
            "interval": "5s",
            "provider": "generic",
            "bucketName": BUCKET,
            "endpoint": f"{self._address}:7070",
            "insecure": True,
            "region": "us-east-1",
            "secretRef": {"name": "bucket"},
        }
        self._apply(_SOURCE, "Bucket", "site", spec=source)
        example = next(found for found in yaml.safe_load_all(_EXAMPLE.read_text()) if found["kind"] == "Kustomization")
        often = {"interval": "5s", "retryInterval": "5s", "sourceRef": {"kind": "Bucket", "name": "site"}}
        self._apply(_KUSTOMIZE, "Kustomization", "portfolios", spec={**example["spec"], **often})
        self._followed = True

    def ready(self) -> tuple[str, str, str]:
        """Status, reason and message of Ready of the Kustomization."""
        conditions = self.kustomization().get("status", {}).get("conditions", ())
        found = next((entry for entry in conditions if entry["type"] == "Ready"), None)
        return (found["status"], found["reason"], found["message"]) if found else ("", "", "")

    def current(self) -> bool:
        """Whether Flux has applied what was last put or removed, and found it all Ready."""
        newest, applied = self._revision(), self.kustomization().get("status", {}).get("lastAppliedRevision")
        return newest not in (None, self._left_behind) and newest == applied and self.ready()[0] == "True"

    def _revision(self) -> str | None:
        if not self._followed:
            return None
        source = self.kubernetes.request("GET", self.kubernetes.path(_SOURCE, "Bucket", "site"))
        found = source.get("status", {}).get("artifact", {}).get("revision")
        return str(found) if found else None

    def kustomization(self) -> dict[str, Any]:
        """The Kustomization as stored."""
        return dict(self.kubernetes.request("GET", self.kubernetes.path(_KUSTOMIZE, "Kustomization", "portfolios")))

    def changes(self) -> list[str]:
        """What Flux says it changed, oldest first."""
        events = self.kubernetes.request("GET", self.kubernetes.path("v1", "Event"))["items"]
        told = [event for event in events if event["involvedObject"].get("name") == "portfolios"]
        words = (" configured", " created", " deleted")
        return [line for event in told for line in event["message"].splitlines() if line.endswith(words)]

    def leave(self) -> None:
        """Take the Kustomization away with all that it applied, then the source."""
        for kind in ("kustomization", "bucket"):
            self.kubernetes.kubectl(
                "delete",
                f"{kind}.{'kustomize' if kind[0] == 'k' else 'source'}.toolkit.fluxcd.io",
                "--all",
                "--wait=true",
                "--timeout=180s",
            )

    def _apply(self, version: str, kind: str, name: str, **parts: Any) -> None:
        self.kubernetes.apply({"apiVersion": version, "kind": kind, "metadata": {"name": name}, **parts})


@contextmanager
def running(kubernetes: Kubernetes) -> Iterator[Flux]:
    """Flux while the block runs. Its programs run beside the cluster, as the administrator that Flux is by default."""
    definitions = kubernetes.binaries / "flux-definitions.yaml"
    kubernetes.kubectl("apply", "--server-side", "-f", str(definitions))
    kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    names = "buckets.source.toolkit.fluxcd.io", "kustomizations.kustomize.toolkit.fluxcd.io"
    kubernetes.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in names), "--timeout=30s")
    storage = Path(tempfile.mkdtemp(prefix="flux-"))
    ports = free_ports(5)
    served = f"127.0.0.1:{ports[0]}"
    source = [f"--storage-path={storage}", f"--storage-addr={served}", f"--storage-adv-addr={served}"]
    flux = Flux(kubernetes)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, storage, ignore_errors=True)
        for name, own, (metrics, health) in (
            ("source-controller", source, ports[1:3]),
            ("kustomize-controller", [], ports[3:5]),
        ):
            common = [f"--metrics-addr=127.0.0.1:{metrics}", f"--health-addr=127.0.0.1:{health}", "--events-addr="]
            stack.enter_context(_program(kubernetes, name, *common, *own, log=storage / f"{name}.log"))
        yield flux


@contextmanager
def _program(kubernetes: Kubernetes, name: str, *arguments: str, log: Path) -> Iterator[None]:
    environment = {**os.environ, "KUBECONFIG": str(kubernetes.kubeconfig), "RUNTIME_NAMESPACE": NAMESPACE}
    with log.open("w") as output:
        process = subprocess.Popen(
            [kubernetes.binaries / name, "--watch-all-namespaces=true", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        yield
        assert process.poll() is None, f"{name} ended: {_errors(log)}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print(f"--- {name}\n" + "\n".join(_errors(log)))


def _errors(log: Path) -> list[str]:
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    told = []
    for line in lines:
        try:
            level = json.loads(line).get("level")
        except ValueError:
            level = "error"
        if level == "error":
            told.append(line)
    return told[-10:]
