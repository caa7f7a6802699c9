"""A Kubernetes control plane on free ports of loopback: no root, no network of its own, several at once.

``ApiServer`` is etcd and the API server, there within seconds. ``ControlPlane`` adds controllers, scheduler and kwok:
DaemonSets get their pods, and nodes that exist in the API only play them.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

BED = Path(__file__).parent / "bed"
MANIFESTS = Path(__file__).parents[2] / "manifests"


class NotBuilt(Exception):
    """Programs of the test bed are missing or switched off; the message says how to get them."""


def bed_cache() -> Path:
    """Folder of all that was built for the bed. Raises :class:`NotBuilt` where it is not to be used."""
    if os.environ.get("EDGEFOLIO_BED") == "off":
        raise NotBuilt("EDGEFOLIO_BED=off: without the Kubernetes of the tests")
    if sys.platform != "linux":
        raise NotBuilt("the test bed runs on Linux only")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("BED_CACHE") or cache / "edgefolio" / "cluster-bed")


def programs(*needed: str) -> Path:
    """Folder of the bed's programs. Raises :class:`NotBuilt`."""
    folder = bed_cache() / "bin"
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise NotBuilt(f"{', '.join(missing)} not built; once, about 10 minutes: {BED / 'build.sh'}")
    return folder


class Refused(AssertionError):
    """Kubernetes said no; the message is what it said."""


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """A running cluster: kubectl for what users see, plain requests for what only has to be there."""

    binaries: Path
    kubeconfig: Path
    namespace: str = "default"
    environment: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    """Plain requests show no certificate and no token but their own."""

    def kubectl(self, *arguments: str, stdin: object = None) -> str:
        """What ``kubectl`` prints; ``stdin`` is sent as JSON. Raises :class:`Refused`."""
        # Named only where it must be: kubectl refuses files of several namespaces when one is named.
        where = [] if self.namespace == "default" else ["--namespace", self.namespace]
        done = subprocess.run(
            [self.binaries / "kubectl", "--kubeconfig", self.kubeconfig, *where, *arguments],
            input=None if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            # Longer than what kubectl itself is told to wait for.
            timeout=400,
            check=False,
            env={**os.environ, **self.environment},
        )
        if done.returncode:
            raise Refused(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """The API server's answer. Raises :class:`Refused` with its message."""
        server, context, credentials = _access(self.kubeconfig, anonymous=self.anonymous)
        request = urllib.request.Request(
            server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={**credentials, **(headers or {}), "Content-Type": content_type},
        )
        try:
            with urllib.request.urlopen(request, context=context, timeout=60) as answer:
                result: dict[str, Any] = json.load(answer)
                return result
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(json.load(error)["message"]) from None

    def path(self, api_version: str, kind: str, name: str = "") -> str:
        """Where an object, or without ``name`` all of its kind in this namespace, is found."""
        prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        inside = "" if kind in ("Namespace", "Node", "PersistentVolume") else f"/namespaces/{self.namespace}"
        return f"{prefix}{inside}/{kind.lower()}s{'/' + name if name else ''}"

    def apply(
        self,
        document: dict[str, Any],
        *,
        subresource: str = "",
        manager: str = "test",
        headers: dict[str, str] | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Server-side apply ``document``, strict about unknown fields; the stored object."""
        path = self.path(document["apiVersion"], document["kind"], document["metadata"]["name"])
        options = f"fieldManager={manager}&force=true&fieldValidation=Strict{'&dryRun=All' if dry_run else ''}"
        return self.request(
            "PATCH",
            f"{path}{'/' + subresource if subresource else ''}?{options}",
            document,
            content_type="application/apply-patch+yaml",
            headers=headers,
        )

    def within(self, namespace: str) -> Kubernetes:
        """The same cluster, another namespace."""
        return replace(self, namespace=namespace)


def install_resources(kubernetes: Kubernetes) -> None:
    """Our resource definitions, ready for use."""
    kubernetes.kubectl("apply", "--server-side", "-k", str(MANIFESTS / "crds"))
    kubernetes.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    retried(lambda: kubernetes.kubectl("get", "modelportfolios,modelendpoints"), seconds=30)


class ApiServer:
    """Starts etcd and kube-apiserver on free ports of loopback; nobody but the owner of the token gets in."""

    def __init__(self, *, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Kubernetes:
        etcd, etcd_peer, port = free_ports(3)
        try:
            self._start(
                "etcd",
                f"--data-dir={self._folder / 'etcd'}",
                f"--listen-client-urls=http://127.0.0.1:{etcd}",
                f"--advertise-client-urls=http://127.0.0.1:{etcd}",
                f"--listen-peer-urls=http://127.0.0.1:{etcd_peer}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            )
            self._start("kube-apiserver", *self._api_server_flags(etcd=etcd, port=port))
            kubernetes = Kubernetes(binaries=self._binaries, kubeconfig=self._kubeconfig(port))
            retried(lambda: kubernetes.kubectl("get", "--raw", "/readyz"), seconds=90, alive=self._alive)
            return kubernetes
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()  # nothing of it is kept
            process.wait()

    def _api_server_flags(self, *, etcd: int, port: int) -> Iterator[str]:
        key = self._folder / "service-account.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (self._folder / "tokens.csv").write_text("for-the-test,admin,admin,system:masters\n")
        yield f"--etcd-servers=http://127.0.0.1:{etcd}"
        yield "--bind-address=127.0.0.1"
        yield "--advertise-address=127.0.0.1"
        yield "--endpoint-reconciler-type=none"
        yield f"--secure-port={port}"
        yield f"--cert-dir={self._folder / 'certificates'}"
        yield f"--token-auth-file={self._folder / 'tokens.csv'}"
        yield f"--service-account-key-file={key}"
        yield f"--service-account-signing-key-file={key}"
        yield "--service-account-issuer=https://kubernetes.default.svc.cluster.local"
        yield "--service-cluster-ip-range=10.96.0.0/16"
        yield "--authorization-mode=RBAC"
        yield "--allow-privileged=true"
        # There is no controller that would make the default service account of a namespace.
        yield "--disable-admission-plugins=ServiceAccount"
        yield "--profiling=false"

    def _kubeconfig(self, port: int) -> Path:
        path = self._folder / "kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": f"https://127.0.0.1:{port}",
                        # The server's certificate is signed by itself: it vouches for itself.
                        "certificate-authority": str(self._folder / "certificates" / "apiserver.crt"),
                    },
                }
            ],
            "users": [{"name": "admin", "user": {"token": "for-the-test"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def _start(self, program: str, *flags: str) -> None:
        with (self._folder / f"{program}.log").open("wb") as log:
            process = subprocess.Popen(
                # Whatever ends the tests, nothing of theirs stays behind.
                ["setpriv", "--pdeathsig", "KILL", self._binaries / program, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)

    def _alive(self) -> None:
        for process in self._processes:
            if process.poll() is not None:
                name = Path(str(process.args[3])).name  # type: ignore[index]
                log = (self._folder / f"{name}.log").read_text()[-3000:]
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{log}")


class ControlPlane(ApiServer):
    """The API server with controllers, scheduler and kwok."""

    #: What DaemonSets, their pods and whatever goes with its owner or node need.
    CONTROLLERS = (
        "daemonset-controller",
        "garbage-collector-controller",
        "namespace-controller",
        "node-lifecycle-controller",
    )

    def __enter__(self) -> Kubernetes:
        kubernetes = super().__enter__()
        kubeconfig = kubernetes.kubeconfig
        controllers, scheduler, kwok = free_ports(3)
        own = (f"--kubeconfig={kubeconfig}", "--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false")
        quick = ("--kube-api-qps=300", "--kube-api-burst=500")
        try:
            chosen = f"--controllers={','.join(self.CONTROLLERS)}"
            self._start("kube-controller-manager", *own, *quick, chosen, f"--secure-port={controllers}")
            self._start("kube-scheduler", *own, *quick, f"--secure-port={scheduler}")
            self._start(
                "kwok",
                f"--kubeconfig={kubeconfig}",
                f"--config={BED / 'manifests' / 'kwok.yaml'}",
                "--manage-all-nodes=false",
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                "--node-ip=127.0.0.1",
                "--cidr=10.200.0.0/16",
                f"--server-address=127.0.0.1:{kwok}",
                "--node-lease-duration-seconds=40",
            )
            return kubernetes
        except BaseException:
            self.__exit__()
            raise


def add_fake_nodes(kubernetes: Kubernetes, count: int) -> None:
    """``count`` nodes that exist in the API only, Ready; as ``bed/fake-nodes.sh`` adds them to a whole cluster."""
    template = (BED / "manifests" / "fake-node.yaml").read_text()
    items = [yaml.safe_load(template.replace("@NAME@", f"fake-{number}")) for number in range(1, count + 1)]
    kubernetes.kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": items})
    kubernetes.kubectl("wait", "--for=condition=Ready", "--timeout=100s", "nodes", "-l", "type=kwok")


@functools.cache
def _access(kubeconfig: Path, *, anonymous: bool) -> tuple[str, ssl.SSLContext, dict[str, str]]:
    """Address, trust and credentials that ``kubeconfig`` holds."""
    document = yaml.safe_load(kubeconfig.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    authority = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(
        cafile=cluster.get("certificate-authority"),
        cadata=base64.b64decode(authority).decode() if authority else None,
    )
    if anonymous:
        return cluster["server"], context, {}
    if "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
    return cluster["server"], context, {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def retried(attempt: Any, *, seconds: float, alive: Any = None) -> None:
    """Call ``attempt`` until it is no longer refused; ``alive`` may raise to give up at once."""
    end = time.monotonic() + seconds
    while True:
        if alive is not None:
            alive()
        try:
            attempt()
            return
        except Refused:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
