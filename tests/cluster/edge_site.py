"""A whole edge site: Edgefolio installed by its chart on a real cluster, and a portfolio that edge nodes serve.

Nothing is played here: the Job trains and prunes, agents and Tritons run in restricted pods, clients are pods, faults
are made on the machine's own cables and processes.
"""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bed_machine import Machine, container_id
from cluster_site import wait_for
from edge_client import Client
from edge_portfolio import ANNOTATIONS, BATCH, IMAGES, MODEL, SERVE_LABEL, SPEC

from edgefolio.contract.pod import TOKEN_MOUNT

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "helm" / "edgefolio"
PODS = Path(__file__).parent / "pods"
SYSTEM = "edgefolio-system"


class EdgeSite:
    """One namespace of a cluster where Edgefolio is installed."""

    def __init__(self, kubernetes: Any, run: Path, *, namespace: str = "site") -> None:
        self.kubernetes = kubernetes.within(namespace)
        self.machine = Machine(run=run, binaries=kubernetes.binaries)
        self.namespace = namespace
        self.bucket = run / "s3" / "data" / "portfolios"
        self.spec = SPEC

    # ---- setting up

    def set_up(self) -> None:
        """From an empty cluster to a portfolio that edge-1 and edge-2 serve; what is there already is left alone."""
        done = progress("installing the chart")
        self.install()
        self.prepare()
        self.serve_on("edge-1", "edge-2")
        done()
        done = progress("making a portfolio and serving it on two nodes")
        self.apply()
        self.wait_ready()
        done()
        self._settle()

    def calm(self) -> None:
        """Undo what tests do: neighbours, clients, annotations, links, changed specs."""
        for node in self.nodes():
            self.machine.heal(node)
        for role in ("hog", "client"):
            self.kubernetes.kubectl("delete", "pod", "-l", f"role={role}", "--wait=true", "--timeout=60s")
        everything = [f"{key}-" for key in ANNOTATIONS]
        self.kubernetes.kubectl("annotate", "node", "--all", *everything)
        self.kubernetes.kubectl("annotate", "namespace", self.namespace, *everything)
        self.kubernetes.kubectl("annotate", "pod", "-l", "edgefolio.dev/endpoint", *everything)
        self.apply()
        self.wait_ready(seconds=120)
        self._settle()

    def _settle(self) -> None:
        # What is most accurate changes where a new revision is on its way.
        nodes = ("edge-1", "edge-2")
        wait_for(lambda: all(self.active(node) == self.most_accurate for node in nodes), seconds=240)
        # A client that comes before its own node's pod is up stays with another node's.
        wait_for(lambda: self.routed(*nodes), seconds=60)

    @property
    def most_accurate(self) -> str:
        """Name of the most accurate variant: what a calm node serves."""
        return str(self.variants()[-1]["name"])

    @property
    def fastest(self) -> str:
        """Name of the fastest variant."""
        return str(self.variants()[0]["name"])

    def objective(self, *, times: float = 4.0) -> int:
        """A latency objective in milliseconds that only a faster variant meets beside a busy neighbour."""
        # Clients share the node's one processor, which the profile did not, and the way back up asks for some room:
        # beside its fixed costs a small variant makes its node look slower than it is.
        return math.ceil(times * float(self.variants()[-1]["p95Milliseconds"])) + 4

    def install(self, *settings: str) -> None:
        """Install the chart, or upgrade to it."""
        images = [f"--set={key}.repository=edgefolio.local/{name},{key}.tag=test" for key, name in CHART_IMAGES.items()]
        self.helm(
            *("upgrade", "--install", "edgefolio", str(CHART), "--namespace", SYSTEM, "--create-namespace"),
            *images,
            "--set=image.pullPolicy=Never",
            # Nodes are this machine: what a test keeps on a node lies below.
            f"--set=rbac.hostPaths={{{tempfile.gettempdir()}}}",
            *settings,
            "--wait",
            "--timeout=120s",
        )

    def helm(self, *arguments: str) -> str:
        """What ``helm`` prints."""
        done = subprocess.run(
            [self.kubernetes.binaries / "helm", "--kubeconfig", self.kubernetes.kubeconfig, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def prepare(self) -> None:
        """Namespace, credentials, and the volume with the test environment's torch (instead of a 5 GB image)."""
        self.bucket.mkdir(parents=True, exist_ok=True)
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        self._apply("v1", "Namespace", self.namespace, labels=restricted)
        keys = {
            "AWS_ENDPOINT_URL": "http://s3.kube-system:7070",
            "AWS_ACCESS_KEY_ID": "bed",
            "AWS_SECRET_ACCESS_KEY": "bed-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for secret in ("s3", "s3-read"):
            self._apply("v1", "Secret", secret, stringData=keys)
        name = f"libraries-{self.namespace}"
        volume = {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": _libraries(), "type": "Directory"},
            "claimRef": {"namespace": self.namespace, "name": "libraries"},
        }
        self._apply("v1", "PersistentVolume", name, spec=volume)
        claim = {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": name,
            "resources": {"requests": {"storage": "1Gi"}},
        }
        self._apply("v1", "PersistentVolumeClaim", "libraries", spec=claim)
        for file in PODS.glob("*.py"):
            self._apply("v1", "ConfigMap", file.stem, data={file.name: file.read_text()})

    def serve_on(self, *nodes: str) -> None:
        """Let these nodes and no others serve."""
        for node in self.nodes():
            value = "yes" if node in nodes else None
            self.kubernetes.request(
                "PATCH",
                f"/api/v1/nodes/{node}",
                {"metadata": {"labels": {SERVE_LABEL: value}}},
                content_type="application/merge-patch+json",
            )

    def apply(self, name: str = "digits", *, dry_run: bool = False, **changes: Any) -> dict[str, Any]:
        """Apply the portfolio as a user does, with fields of the spec replaced, or left out where they are ``None``."""
        spec = {key: value for key, value in {**SPEC, **changes}.items() if value is not None}
        version, kind = "edgefolio.dev/v1alpha1", "ModelPortfolio"
        return self._apply(version, kind, name, manager="user", dry_run=dry_run, spec=spec)

    def _apply(
        self, version: str, kind: str, name: str, *, manager: str = "test", dry_run: bool = False, **parts: Any
    ) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name}
        if "labels" in parts:
            metadata["labels"] = parts.pop("labels")
        document = {"apiVersion": version, "kind": kind, "metadata": metadata, **parts}
        return dict(self.kubernetes.apply(document, manager=manager, dry_run=dry_run))

    def anonymous(self) -> EdgeSite:
        """The same site without the administrator's certificate: requests bring their own token."""
        return EdgeSite(replace(self.kubernetes, anonymous=True), self.machine.run, namespace=self.namespace)

    # ---- looking

    def nodes(self) -> list[str]:
        """Names of the nodes."""
        found = self.kubernetes.request("GET", "/api/v1/nodes")["items"]
        return [str(node["metadata"]["name"]) for node in found]

    def portfolio(self, name: str = "digits") -> dict[str, Any]:
        """The portfolio as stored."""
        path = self.kubernetes.path("edgefolio.dev/v1alpha1", "ModelPortfolio", name)
        return dict(self.kubernetes.request("GET", path))

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """The endpoints of the namespace by node."""
        found = self.kubernetes.request("GET", self.kubernetes.path("edgefolio.dev/v1alpha1", "ModelEndpoint"))
        return {entry["spec"]["nodeName"]: entry for entry in found["items"]}

    def active(self, node: str) -> str | None:
        """The variant that the endpoint on ``node`` serves."""
        found = self.endpoints().get(node, {}).get("status", {}).get("activeVariant")
        return str(found) if found else None

    def condition(self, kind: str, name: str = "digits") -> tuple[str, str]:
        """Status and reason of a condition of the portfolio."""
        conditions = self.portfolio(name).get("status", {}).get("conditions", [])
        found = next((entry for entry in conditions if entry["type"] == kind), {"status": "", "reason": "absent"})
        return found["status"], found["reason"]

    def message(self, kind: str, name: str = "digits") -> str:
        """Message of a condition of the portfolio."""
        conditions = self.portfolio(name).get("status", {}).get("conditions", [])
        return next((str(entry.get("message", "")) for entry in conditions if entry["type"] == kind), "")

    def variants(self, name: str = "digits") -> list[dict[str, Any]]:
        """The variants of the newest revision, least accurate first."""
        return list(self.portfolio(name)["status"]["revisions"][-1]["variants"])

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Pods of the namespace with these labels."""
        path = self.kubernetes.path("v1", "Pod") + f"?labelSelector={selector}"
        return list(self.kubernetes.request("GET", path)["items"])

    def pod_on(self, node: str) -> dict[str, Any]:
        """The serving pod on ``node`` that is not on its way out."""
        found = [
            pod
            for pod in self.pods("edgefolio.dev/endpoint")
            if pod["spec"].get("nodeName") == node and not pod["metadata"].get("deletionTimestamp")
        ]
        assert len(found) == 1, f"{len(found)} serving pods on {node}"
        return found[0]

    def wait_ready(self, *, seconds: float = 300, name: str = "digits") -> None:
        """Until the portfolio is Ready, as ``kubectl wait`` sees it."""
        self.kubernetes.kubectl("wait", "--for=condition=Ready", f"mpf/{name}", f"--timeout={seconds:.0f}s")

    def settle_on(self, variant: str, *nodes: str, seconds: float = 60) -> None:
        """Until these nodes serve ``variant``."""
        for node in nodes:
            wait_for(lambda node=node: self.active(node) == variant, seconds=seconds)

    def events(self) -> list[dict[str, Any]]:
        """Events of the namespace."""
        return list(self.kubernetes.request("GET", self.kubernetes.path("v1", "Event"))["items"])

    def routed(self, *nodes: str, name: str = "digits") -> bool:
        """Whether the Service has a ready pod on each of these nodes, for clients of that node."""
        path = self.kubernetes.path("discovery.k8s.io/v1", "EndpointSlice")
        slices = self.kubernetes.request("GET", f"{path}?labelSelector=kubernetes.io/service-name={name}")["items"]
        return set(nodes) <= {
            entry["nodeName"]
            for found in slices
            for entry in found.get("endpoints") or ()
            if entry["conditions"].get("ready") and (entry.get("hints") or {}).get("forNodes")
        }

    def trusts(self, certificate: str) -> bool:
        """Whether agents and operator have been given this certificate of an authority of the API server."""
        operator = EdgeSite(self.kubernetes, self.machine.run, namespace=SYSTEM)
        pods = [(pod, "agent") for pod in self.pods("edgefolio.dev/endpoint")]
        pods += [(pod, "operator") for pod in operator.pods("app.kubernetes.io/component=operator")]
        for pod, container in pods:
            process = self.machine.process_of(pod["spec"]["nodeName"], container_id(pod, container))
            file = Path(f"/proc/{process}/root{TOKEN_MOUNT}/ca.crt")
            if certificate.strip() not in file.read_text():
                return False
        return True

    # ---- pods

    def start_pod(self, name: str, node: str, image: str, *command: str, script: str, cpu: str = "100m") -> None:
        """A restricted pod on ``node`` that runs one of the scripts in pods/."""
        container = {
            "name": "main",
            "image": image,
            "imagePullPolicy": "Never",
            "command": ["python3", f"/script/{script}.py", *command],
            "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}},
            "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}, {"name": "HOME", "value": "/tmp"}],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "script", "mountPath": "/script"}, {"name": "temporary", "mountPath": "/tmp"}],
        }
        spec = {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 2,
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            # A cut link must not take them away.
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [
                {"name": "script", "configMap": {"name": script}},
                {"name": "temporary", "emptyDir": {}},
            ],
        }
        self._apply("v1", "Pod", name, labels={"role": script}, spec=spec)

    def delete_pod(self, name: str) -> None:
        """Delete a pod and wait until it is gone."""
        self.kubernetes.kubectl("delete", "pod", name, "--ignore-not-found", "--wait=true", "--timeout=60s")

    def kill(self, node: str, container: str) -> float:
        """SIGKILL a container of the serving pod on ``node``, as the kernel would; the time of it."""
        return self.machine.kill(node, container_id(self.pod_on(node), container))

    def start_client(self, node: str, *, rate: float = 8, seconds: float = 600, address: str | None = None) -> Client:
        """A client on ``node``; it asks the Service, as users do."""
        address = address or f"digits.{self.namespace}.svc:8001"
        name = f"client-{node}-{int(time.monotonic())}"
        arguments = (address, MODEL, str(rate), str(seconds), str(BATCH))
        self.start_pod(name, node, IMAGES["edge"], *arguments, script="client")
        client = Client(self, name)
        wait_for(lambda: client.requests(), seconds=60)
        return client

    def start_hog(self, node: str, *, processes: int = 2, after_seconds: float = 0) -> str:
        """A neighbour that is busy after some seconds and has six times Triton's share; the name of its pod."""
        name = f"hog-{node}-{int(time.monotonic())}"
        arguments = (str(processes), str(after_seconds))
        self.start_pod(name, node, "bed.local/python:3.11", *arguments, script="hog", cpu="1200m")
        self.kubernetes.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
        return name


def _libraries() -> str:
    """The folder with this environment's torch."""
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parents[1])


#: Values of the chart -> image of the test.
CHART_IMAGES = {
    "image": "operator",
    "agent.image": "edge",
    "pruner.image": "pruner",
    "triton.image": "triton",
}


def progress(text: str) -> Callable[[], None]:
    """Say what is waited for, on standard error: a session of minutes should not be silent."""
    began = time.monotonic()
    print(f"  {text} ...", file=sys.stderr, flush=True)
    return lambda: print(f"  {text}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
