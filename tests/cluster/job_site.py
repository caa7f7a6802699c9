"""Jobs with Kubernetes' own Job controller; the test is scheduler and kubelet, and runs what small Jobs run."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cluster_site import wait_for
from control_plane import ControlPlane, Kubernetes

from edgefolio.contract.pod import TERMINATION_MESSAGE_VARIABLE
from edgefolio.specification.conditions import time_text


class JobControlPlane(ControlPlane):
    """Everything that makes and removes pods of Jobs, and whatever goes with its owner or namespace."""

    CONTROLLERS = ("job-controller", "garbage-collector-controller", "namespace-controller")


NODE = "worker"


class JobSite:
    """A namespace with one node, whose kubelet is the test."""

    def __init__(self, kubernetes: Kubernetes, folder: Path) -> None:
        self.kubernetes, self._folder = kubernetes, folder
        kubernetes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})

    def portfolio(self, name: str = "digits", **spec: Any) -> None:
        """Apply the portfolio as its user does."""
        document = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": name}}
        base = {"repository": {"uri": "s3://bucket/portfolios"}, "serving": {"modelName": "digits"}}
        # Nowhere served: this is about Jobs.
        managed = {"nodeSelector": {"bed/serve": "nowhere"}}
        spec = {**base, **spec}
        spec["serving"] = {**spec["serving"], "managed": managed}
        self.kubernetes.apply({**document, "spec": spec}, manager="user")

    def annotate(self, key: str, value: str, name: str = "digits") -> None:
        self.kubernetes.kubectl("annotate", "--overwrite", "mpf", name, f"{key}={value}")

    def get(self, name: str = "digits") -> dict[str, Any]:
        return self.kubernetes.request("GET", self.kubernetes.path("edgefolio.dev/v1alpha1", "ModelPortfolio", name))

    def status(self, name: str = "digits") -> dict[str, Any]:
        found: dict[str, Any] = self.get(name).get("status", {})
        return found

    def condition(self, kind: str, name: str = "digits") -> tuple[str, str]:
        conditions = self.status(name).get("conditions", [])
        found = next((entry for entry in conditions if entry["type"] == kind), {"status": "", "reason": "absent"})
        return found["status"], found["reason"]

    def message(self, kind: str, name: str = "digits") -> str:
        (found,) = (entry["message"] for entry in self.status(name)["conditions"] if entry["type"] == kind)
        return str(found)

    def exists(self, name: str = "digits") -> bool:
        listed = self.kubernetes.request("GET", self.kubernetes.path("edgefolio.dev/v1alpha1", "ModelPortfolio"))
        return name in [entry["metadata"]["name"] for entry in listed["items"]]

    def jobs(self, component: str) -> list[dict[str, Any]]:
        return self._listed("batch/v1", "Job", component)

    def pods(self, component: str, *, phase: str = "") -> list[dict[str, Any]]:
        """Pods, oldest first."""
        found = self._listed("v1", "Pod", component)
        chosen = [pod for pod in found if not phase or pod.get("status", {}).get("phase") == phase]
        return sorted(chosen, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def events(self) -> set[str]:
        listed = self.kubernetes.request("GET", self.kubernetes.path("v1", "Event"))["items"]
        return {entry["reason"] for entry in listed}

    def start(self, component: str, *, seconds: float = 30) -> dict[str, Any]:
        """What scheduler and kubelet do with the next pod that waits; the pod."""
        pod: dict[str, Any] = wait_for(lambda: self.pods(component, phase="Pending"), seconds=seconds)[0]
        metadata = {"name": pod["metadata"]["name"]}
        self.kubernetes.request(
            "POST",
            self.kubernetes.path("v1", "Pod", metadata["name"]) + "/binding",
            {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": metadata,
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
            },
        )
        self._write(pod, phase="Running", state={"running": {"startedAt": time_text(0)}})
        return pod

    def end(self, pod: dict[str, Any], exit_code: int, message: str = "", *, disrupted: bool = False) -> None:
        """What a kubelet writes when the container ends; ``disrupted``: because the node was taken from it."""
        terminated = {
            "exitCode": exit_code,
            "reason": "Error" if exit_code else "Completed",
            "message": message,
            "startedAt": time_text(0),
            "finishedAt": time_text(1),
        }
        conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "Test"}] if disrupted else []
        phase = "Failed" if exit_code else "Succeeded"
        self._write(pod, phase=phase, state={"terminated": terminated}, conditions=conditions)

    def run(self, component: str, environment: dict[str, str]) -> str:
        """Run the next waiting pod's command on this machine, to its end; what it printed."""
        pod = self.start(component)
        (container,) = pod["spec"]["containers"]
        message = self._folder / f"{pod['metadata']['name']}.termination"
        given = {entry["name"]: entry["value"] for entry in container["env"]}
        done = subprocess.run(
            [sys.executable, *container["command"][1:], *container.get("args", [])],
            env={**os.environ, **given, **environment, TERMINATION_MESSAGE_VARIABLE: str(message)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.end(pod, done.returncode, message.read_text() if message.exists() else "")
        return done.stdout + done.stderr

    def _listed(self, api_version: str, kind: str, component: str) -> list[dict[str, Any]]:
        path = f"{self.kubernetes.path(api_version, kind)}?labelSelector=app.kubernetes.io/component={component}"
        found: list[dict[str, Any]] = self.kubernetes.request("GET", path)["items"]
        return found

    def _write(
        self, pod: dict[str, Any], *, phase: str, state: dict[str, Any], conditions: list[dict[str, Any]] | None = None
    ) -> None:
        status = {
            "phase": phase,
            "conditions": conditions or [],
            "containerStatuses": [
                {
                    "name": pod["spec"]["containers"][0]["name"],
                    "image": "x",
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": state,
                }
            ],
        }
        metadata = {"name": pod["metadata"]["name"]}
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}
        self.kubernetes.apply(document, subresource="status", manager="kubelet")


@contextmanager
def log_server(kubernetes: Kubernetes, folder: Path, lines: list[str]) -> Iterator[None]:
    """A kubelet that knows nothing but logs: the API server asks it for those of every pod of the node."""
    certificate, key = folder / "kubelet.crt", folder / "kubelet.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=kubelet"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )

    class Logs(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.path.startswith(f"/containerLogs/{kubernetes.namespace}/") and "tailLines=" in self.path
            self.send_response(200 if asked else 404)
            self.end_headers()
            self.wfile.write("\n".join(lines[-10:]).encode() + b"\n")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Logs)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": server.server_port}},
    }
    document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": status}
    kubernetes.apply(document, subresource="status", manager="kubelet")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
