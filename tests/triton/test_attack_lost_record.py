"""The record of a server is lost, cut or of an earlier version: the server is found again or ended, never left."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from triton_agent import Command, write_portfolio
from triton_portfolios import MODEL, images, publish, revealed_tag, revealing_model
from triton_remains import remains_of

from edgefolio_edge.triton.client import TritonControl
from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.launcher.server_record import recorded_server
from edgefolio_edge.triton.processes import left_servers


def _free_ports() -> list[str]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [str(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


class Place:
    def __init__(self, folder: Path) -> None:
        self.state, self.file = folder / "state", folder / "portfolio.json"
        publish(folder / "portfolios", [revealing_model(1)])
        write_portfolio(self.file, repository=folder / "portfolios", model=MODEL)
        http, grpc, metrics = _free_ports()
        self.ports = ("--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics)
        self.record = self.state / "server.json"

    def run(self, *ports: str) -> Command:
        return Command("run", "-f", str(self.file), "--json", "--state-dir", str(self.state), *(ports or self.ports))

    def killed_agent(self) -> TritonServer:
        """An agent is killed; its server goes on."""
        agent = self.run()
        agent.wait_for("serving")
        server = recorded_server(self.state)
        assert server is not None
        agent.kill()
        assert server.is_alive()
        return server

    def servers(self) -> int:
        return len(left_servers(self.state / "models"))


def _halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _of_another_process(path: Path) -> None:
    document = json.loads(path.read_text())
    document["start"]["ticks"] += 1
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("lose", [Path.unlink, _halved, _of_another_process], ids=["absent", "half", "another"])
def test_a_server_without_its_record_is_ended_before_another_starts_on_its_ports(
    tmp_path: Path, lose: Callable[[Path], object]
) -> None:
    place = Place(tmp_path)
    server = place.killed_agent()
    lose(place.record)
    with place.run() as agent:
        serving = agent.wait_for("serving")
        assert "adopted" not in serving
        assert serving["grpc"] == server.grpc_endpoint
        assert place.servers() == 1
        assert not server.is_alive()
        assert agent.stop() == 0
    assert remains_of(server) == ()
    assert place.servers() == 0


def test_other_ports_leave_no_second_server_either(tmp_path: Path) -> None:
    place = Place(tmp_path)
    server = place.killed_agent()
    _halved(place.record)
    with place.run("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0") as agent:
        agent.wait_for("serving")
        assert place.servers() == 1
        assert not server.is_alive()
        assert agent.stop() == 0


def test_a_record_of_the_version_before_is_believed_by_the_command_line_alone(tmp_path: Path) -> None:
    """It holds a start in wall time, and the clock was corrected by years since."""
    place = Place(tmp_path)
    server = place.killed_agent()
    document: dict[str, Any] = json.loads(place.record.read_text())
    del document["start"]
    document["identity"]["started"] -= 30 * 365 * 86_400
    place.record.write_text(json.dumps(document))
    with place.run() as agent:
        assert agent.wait_for("serving")["adopted"] is True
        control = TritonControl(server.grpc_endpoint)
        assert revealed_tag(control.infer(MODEL, {"image": images()}).outputs["logits"]) == 1
        control.close()
        assert agent.stop() == 0
    assert remains_of(server) == ()
