"""The supervisor of the agent in its container: a shell script, run here with a program in the agent's place."""

from __future__ import annotations

import importlib.resources
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgefolio.contract.pod import HEALTH_MOUNT
from edgefolio.specification.cluster import ManagedServing
from edgefolio_operator.resources.triton_pod import agent_container


class AgentContainer:
    """The agent's container without a container: its command, with a program in the agent's place."""

    def __init__(self, folder: Path, agent: str, *, synced: bool = False) -> None:
        self.health, self.log = folder / "health", folder / "log"
        self.health.mkdir()
        if synced:
            (self.health / "synced").touch()
        program = folder / "bin" / "python3"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho start $$ >> {self.log}\n{agent}\n")
        program.chmod(0o755)
        script = agent_container(ManagedServing(), image="agent")["command"][-1]
        assert script.count(HEALTH_MOUNT) == 1
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", script.replace(HEALTH_MOUNT, str(self.health))],
            env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            text=True,
        )

    def starts(self) -> list[int]:
        """Process ids of the agents so far."""
        return [int(line.split()[1]) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def wait_for_starts(self, count: int) -> None:
        end = time.monotonic() + 30
        while len(self.starts()) < count:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_an_agent_that_never_synced_ends_its_container_with_its_own_code(tmp_path: Path) -> None:
    container = AgentContainer(tmp_path, "exit 2")
    container.process.communicate()
    assert container.process.returncode == 2
    assert len(container.starts()) == 1


def test_an_agent_that_dies_later_is_started_again_inside_its_container(tmp_path: Path) -> None:
    container = AgentContainer(tmp_path, "exec sleep 600", synced=True)
    container.wait_for_starts(1)
    os.kill(container.starts()[0], signal.SIGKILL)
    container.wait_for_starts(2)
    assert container.process.poll() is None
    container.process.terminate()
    said, _ = container.process.communicate(timeout=30)
    assert container.process.returncode == 0
    assert json.loads(said) == {"event": "ended", "message": "The agent ended with 137; again in 1 s."}
    with pytest.raises(ProcessLookupError):
        os.kill(container.starts()[1], 0)


def test_the_end_of_the_container_waits_for_the_agent(tmp_path: Path) -> None:
    container = AgentContainer(
        tmp_path, f"trap 'sleep 0.5; touch {tmp_path}/done; exit' TERM; while :; do sleep 0.1; done"
    )
    container.wait_for_starts(1)
    time.sleep(0.3)
    container.process.terminate()
    container.process.communicate(timeout=30)
    assert (tmp_path / "done").exists()


def test_the_pause_doubles(tmp_path: Path) -> None:
    container = AgentContainer(tmp_path, "exit 3", synced=True)
    container.wait_for_starts(3)
    container.process.terminate()
    said, _ = container.process.communicate(timeout=30)
    messages = [json.loads(line)["message"] for line in said.splitlines()]
    assert [message.partition("; ")[2] for message in messages[:2]] == ["again in 1 s.", "again in 2 s."]


def test_shellcheck_finds_nothing() -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed")
    script = importlib.resources.files("edgefolio_operator.resources") / "supervisor.sh"
    found = subprocess.run([program, "-"], input=script.read_text(), capture_output=True, text=True)
    assert (found.stdout, found.returncode) == ("", 0)
