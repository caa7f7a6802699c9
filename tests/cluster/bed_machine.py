"""The machine that carries the bed: its processes, cables and containers, where faults are made."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Machine:
    """``run`` is where the running bed writes, ``binaries`` where its programs lie."""

    run: Path
    binaries: Path

    def process_of(self, node: str, identity: str) -> int:
        """Id of the main process of a container, as the machine counts."""
        lines = self.ctr(node, "task", "ls").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(identity))

    def kill(self, node: str, identity: str) -> float:
        """SIGKILL a container, as the kernel would, whatever its API server says; the time of it."""
        self.ctr(node, "task", "kill", "--signal", "SIGKILL", identity)
        return time.time()

    def restart(self, node: str, program: str) -> None:
        """End kubelet, containerd or kube-proxy of ``node`` and start it again."""
        script = Path(__file__).parent / "bed" / "restart.sh"
        subprocess.run([script, node, program], check=True, timeout=30, env={**os.environ, "BED_RUN": str(self.run)})

    def reboot(self, node: str) -> None:
        """End all that runs on ``node`` at once, forget what lives in its memory, and start it again."""
        script = Path(__file__).parent / "bed" / "reboot.sh"
        subprocess.run([script, node], check=True, timeout=90, env={**os.environ, "BED_RUN": str(self.run)})

    def ctr(self, node: str, *arguments: str) -> str:
        """What containerd's own client prints on ``node``."""
        command = [self.binaries / "ctr", "-a", self.run / node / "containerd.sock", "-n", "k8s.io"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def frozen(self, program: str) -> Iterator[None]:
        """A program of the bed that answers nobody for a while, and loses nothing."""
        identity = int((self.run / "pid" / program).read_text().split()[0])
        os.kill(identity, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(identity, signal.SIGCONT)

    def cut(self, node: str) -> None:
        """Cut the node's link."""
        subprocess.run(["ip", "link", "set", node, "down"], check=True)

    def heal(self, node: str) -> None:
        """Put the node's link back."""
        subprocess.run(["ip", "link", "set", node, "up"], check=True)


def container_id(pod: dict[str, Any], name: str) -> str:
    """The id of a running container of ``pod`` in containerd."""
    entries = [entry for key in ("containerStatuses", "initContainerStatuses") for entry in pod["status"].get(key, ())]
    (identity,) = (entry["containerID"] for entry in entries if entry["name"] == name)
    return str(identity).removeprefix("containerd://")


def bed_run() -> Path:
    """Where the running bed writes."""
    return Path(os.environ.get("BED_RUN", "/tmp/edgefolio-bed"))


def cpusets() -> str:
    """The bed's NODE_CPUSETS: a processor for each serving node, so that a hog on one leaves the other alone."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        return ""
    return f"{processors[0]} {processors[1]} {','.join(map(str, processors))}"
