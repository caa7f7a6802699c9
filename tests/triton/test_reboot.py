"""A machine that is booted again while API server and store are away: it serves what it has verified on its disk."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc
from triton_agent import Command, eventually, write_portfolio
from triton_pod import Pod, cut_off, write_order
from triton_portfolios import MODEL, images, publish, revealed_tag, revealing_model
from triton_remains import remains_of

from edgefolio.manifest import Manifest, sha256_of
from edgefolio_edge.process.steady_clock import boot_id, seconds_since_boot
from edgefolio_edge.triton.launcher.server_record import recorded_server

#: A shared machine may be slow; nothing here waits for the time to pass.
PATIENCE_SECONDS = 240.0
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a process another boot of the machine")


def another_boot(folder: Path) -> list[str]:
    """A command within which the machine has just been booted: another name of the boot, and seconds since then."""
    name = folder / "boot_id"
    name.write_text("00000000-0000-4000-8000-000000000001\n")
    assert boot_id() != name.read_text().strip()
    since = f"--boottime=-{max(0, int(seconds_since_boot()) - 30)}"
    mount = f'mount --bind {name} /proc/sys/kernel/random/boot_id && exec "$@"'
    return ["unshare", "--mount", "--time", since, "sh", "-c", mount, "sh"]


class Node:
    """A pod that served, on a node that lost its power."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repository = folder, folder / "portfolios"
        self.manifest: Manifest = publish(self.repository, [revealing_model(tag, width=4 * tag) for tag in (1, 2, 3)])
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            environment = cut_off(folder, port=unused.getsockname()[1], repository=self.repository)
        self.pod = Pod(folder / "pod", environment)
        write_order(
            self.pod.state,
            targetVariant="variant-2",
            revision={"number": 1, "manifestDigest": sha256_of(self.manifest.to_bytes())},
            switching={
                "probeIntervalSeconds": 1,
                "observeSeconds": "0.2",
                "autonomyAfterSeconds": 5,
                "upAfterSeconds": 0,
                "minDwellSeconds": 0,
                "settleSeconds": 0,
            },
        )
        self.pod.start_triton()
        self.pod.start_agent()
        self.pod.wait_until(lambda: self.pod.says("serving"), seconds=PATIENCE_SECONDS)
        assert self.pod.answered_by() == 2

    def lose_power(self) -> None:
        """Everything ends at once; what lies in memory is gone, and the store as well."""
        server = self.pod.triton
        assert server is not None
        self.pod.kill_agent()
        server.identity.kill()
        server.stop()
        for folder in (self.pod.health, self.folder / "claims"):
            shutil.rmtree(folder)
            folder.mkdir()
        self.pod.key.unlink()
        shutil.rmtree(self.repository)
        self.pod.log.write_text("")

    def boot(self) -> None:
        self.pod.start_triton()
        self.pod.start_agent(within=another_boot(self.folder))
        self.pod.wait_until(lambda: self.pod.says("serving"), seconds=PATIENCE_SECONDS)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.pod.end()


def test_a_node_serves_what_it_served_and_then_decides_for_itself(node: Node) -> None:
    node.lose_power()
    node.boot()
    assert node.pod.events("serving")[0]["variant"] == "variant-2"
    assert node.pod.events("unheard")
    assert node.pod.events("failed") == node.pod.events("damaged") == []
    # Nobody says anything: after a while it takes the best variant by itself.
    node.pod.wait_until(lambda: node.pod.answered_by() == 3, seconds=PATIENCE_SECONDS)
    assert any("alone" in event["message"] for event in node.pod.events("orders"))


def test_what_the_power_cut_damaged_is_never_served(node: Node) -> None:
    node.lose_power()
    damaged = node.pod.models / MODEL / "102" / "model.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-100] + bytes(100))
    node.boot()
    assert node.pod.answered_by() in (1, 3)
    assert all(event["variant"] != "variant-2" for event in node.pod.events("serving"))


def test_a_machine_of_its_own_serves_again_as_well(tmp_path: Path) -> None:
    repository, file, state = tmp_path / "portfolios", tmp_path / "portfolio.json", tmp_path / "state"
    publish(repository, [revealing_model(tag, width=4 * tag) for tag in (1, 2)])
    write_portfolio(file, repository=repository, model=MODEL, objectives={"maxMemory": "1536Ki"})
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    options = ("run", "-f", str(file), "--json", "--state-dir", str(state), *ports)
    before = Command(*options)
    assert before.wait_for("serving")["variant"] == "variant-1"
    server = recorded_server(state)
    assert server is not None
    before.kill()
    server.identity.kill()
    server.stop()
    shutil.rmtree(repository)
    with Command(*options, prefix=another_boot(tmp_path)) as agent:
        serving = agent.wait_for("serving")
        assert serving["variant"] == "variant-1"
        client = triton_grpc.InferenceServerClient(serving["grpc"])
        tensor = triton_grpc.InferInput("image", [1, 1, 12, 12], "FP32")
        tensor.set_data_from_numpy(images())
        assert revealed_tag(client.infer(MODEL, [tensor]).as_numpy("logits")) == 1
        client.close()
        # It is in control: another objective is followed, with what lies on the disk.
        write_portfolio(file, repository=repository, model=MODEL)
        agent.wait_for("switch", variant="variant-2")
        after = recorded_server(state)
        assert after is not None
    eventually(lambda: remains_of(after) == ())
    assert remains_of(server) == ()
