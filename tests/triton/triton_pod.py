"""What runs in one pod, without the pod: Triton, and the agent beside it. The test plays the kubelet."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import tritonclient.http as triton_http
import yaml
from triton_portfolios import MODEL, images, revealed_tag

from edgefolio_edge.triton.launcher.command_line import LOOPBACK, ServerSettings
from edgefolio_edge.triton.launcher.ports import Ports, settle_ports
from edgefolio_edge.triton.launcher.server import TritonServer


class Pod:
    """Volumes, Triton's addresses and the agent's environment outlive what is started and killed."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """``environment`` says where the API server and the repository are."""
        self.models, self.state, self.key, self.health = (
            folder / name for name in ("models", "state", "key", "health")
        )
        for volume in (self.models, self.state, self.health):
            volume.mkdir(parents=True)
        self.log = folder / "agent.log"
        self.log.touch()
        self.ports = settle_ports(Ports(http=0, grpc=0, metrics=0), address=LOOPBACK)
        self.environment = {
            **os.environ,
            "POD_NAMESPACE": "default",
            "EDGEFOLIO_MODELS": str(self.models),
            "EDGEFOLIO_STATE": str(self.state),
            "EDGEFOLIO_HEALTH": str(self.health),
            "EDGEFOLIO_KEY_FILE": str(self.key),
            "EDGEFOLIO_TRITON": f"grpc://{LOOPBACK}:{self.ports.grpc}",
            "EDGEFOLIO_TRITON_METRICS": f"{LOOPBACK}:{self.ports.metrics}",
            **environment,
        }
        self.triton: TritonServer | None = None
        self.agent: subprocess.Popen[bytes] | None = None

    def start_triton(self) -> TritonServer:
        """Start Triton's container: what was said of an earlier server is forgotten first."""
        for name in ("serving", "restart"):
            (self.health / name).unlink(missing_ok=True)
        self.triton = TritonServer.start(ServerSettings(model_repository=self.models, ports=self.ports))
        self.key.write_text(f"{self.triton.key.name}={self.triton.key.secret}")
        return self.triton

    def start_agent(self, *, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start the agent's container. As in a pod it does not see Triton's processes, where the test may hide them.

        ``within`` is a command that starts it in another way.
        """
        apart = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"] if os.geteuid() == 0 else []
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *apart, *within, sys.executable, "-m", "edgefolio_edge.cluster"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.agent

    def kill_agent(self) -> None:
        """SIGKILL it."""
        assert self.agent is not None
        self._signal(signal.SIGKILL)
        self.agent.wait()

    def _signal(self, number: signal.Signals) -> None:
        """To the agent itself, not to what hides it."""
        assert self.agent is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.agent.pid)
            hidden = [child for child in process.children() if process.name() == "unshare"]
            (hidden[0] if hidden else process).send_signal(number)

    def answered_by(self) -> int:
        """The tag of the variant that answers a client that names no version."""
        tensor = triton_http.InferInput("image", [1, 1, 12, 12], "FP32")
        tensor.set_data_from_numpy(images())
        with triton_http.InferenceServerClient(f"{LOOPBACK}:{self.ports.http}") as client:
            return revealed_tag(client.infer(MODEL, [tensor]).as_numpy("logits"))

    def says(self, name: str) -> bool:
        """Whether the agent's file ``name`` is there."""
        return (self.health / name).exists()

    def wait_until(self, claim: Callable[[], bool], *, seconds: float = 60) -> float:
        """Ask until ``claim`` holds; how long that took."""
        began = time.monotonic()
        while not claim():
            assert time.monotonic() < began + seconds, self.log.read_text()
            assert self.agent is None or self.agent.poll() is None, self.log.read_text()
            time.sleep(0.02)
        return time.monotonic() - began

    def events(self, name: str) -> list[dict[str, Any]]:
        """What the agent said of this kind."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event.get("event") == name]

    def end(self) -> None:
        """Stop both as a kubelet does, Triton first."""
        try:
            if self.triton is not None:
                self.triton.identity.send(signal.SIGCONT)
                self.triton.stop()
            if self.agent is not None and self.agent.poll() is None:
                self._signal(signal.SIGTERM)
                assert self.agent.wait(timeout=30) == 0, self.log.read_text()
        finally:
            if self.agent is not None:
                self.agent.kill()
                self.agent.wait()
            print(self.log.read_text())


def cut_off(folder: Path, *, port: int, repository: Path) -> dict[str, str]:
    """The environment of an agent whose API server is away; its repository is the claim ``portfolios``."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "away",
                "contexts": [{"name": "away", "context": {"cluster": "away", "user": "agent"}}],
                "clusters": [{"name": "away", "cluster": {"server": f"https://{LOOPBACK}:{port}"}}],
                "users": [{"name": "agent", "user": {"token": "none"}}],
            }
        )
    )
    claims = folder / "claims"
    claims.mkdir()
    (claims / "portfolios").symlink_to(repository)
    return {"KUBECONFIG": str(kubeconfig), "POD_NAME": "pod-1", "EDGEFOLIO_CLAIMS": str(claims)}


def write_order(state: Path, **spec: Any) -> None:
    """What the operator said last, as the agent kept it."""
    document = {
        "portfolioRef": {"name": "digits"},
        "podName": "pod-1",
        "nodeName": "edge-1",
        "modelName": MODEL,
        "repositoryURI": "pvc://portfolios/",
        **spec,
    }
    with contextlib.suppress(FileExistsError):
        state.mkdir(parents=True)
    (state / "orders.json").write_text(json.dumps(document))
