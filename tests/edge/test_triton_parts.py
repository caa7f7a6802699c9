"""Parts around the server that need none: libraries, addresses, keys, processes, probes, what is said."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from triton_portfolios import draft, images, revealing_model

from edgefolio.decision.types import State
from edgefolio.errors import UserError
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.agent.records.state_files import StateFile
from edgefolio_edge.models.probe import backend_probe, batch_of, mismatch, probe_inputs
from edgefolio_edge.triton.endpoint import attach, host_and_port, read_key
from edgefolio_edge.triton.launcher import libpython
from edgefolio_edge.triton.launcher.ports import Ports, settle_ports
from edgefolio_edge.triton.launcher.wheel import environment_for, lay_out_python, locate_wheel
from edgefolio_edge.triton.processes import ProcessIdentity


def test_the_library_of_this_python_is_found() -> None:
    directory = libpython.require_libpython()
    assert (directory / libpython.library_name()).is_file()


def test_a_missing_library_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up is real; the name is of a Python that no distribution has, and nothing can be downloaded."""
    monkeypatch.setattr(libpython, "library_name", lambda: "libpython3.98.so.1.0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert libpython.find_libpython() is None
    with pytest.raises(UserError, match="apt-get install libpython"):
        libpython.require_libpython()


def test_the_stubs_python_runs_with_our_packages_and_nothing_else(tmp_path: Path) -> None:
    executables = lay_out_python(tmp_path / "python")
    code = "import sys, numpy, onnxruntime; print(sys.prefix); print('pytest' in sys.modules)"
    finished = subprocess.run([executables / "python3", "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == [str(tmp_path / "python"), "False"]
    environment = environment_for(locate_wheel(), threads=2, executables=executables, temporary=tmp_path)
    assert environment["PATH"].split(":")[0] == str(executables)
    assert environment["OMP_NUM_THREADS"] == "2"


def test_credentials_of_the_repository_stay_with_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    environment = environment_for(locate_wheel(), threads=1, executables=tmp_path, temporary=tmp_path)
    assert not [name for name in environment if name.startswith("AWS_")]


@pytest.mark.parametrize("address", ["grpc://10.0.0.5:8001", "10.0.0.5:8001", "grpc://[::1]:8001/"])
def test_addresses(address: str) -> None:
    assert host_and_port(address).endswith(":8001")


@pytest.mark.parametrize("address", ["http://localhost:8000", "localhost", "grpc://localhost:99999", "grpc://a b:1"])
def test_what_is_no_address_is_one_clear_error(address: str) -> None:
    with pytest.raises(UserError, match="not the address of a gRPC service"):
        host_and_port(address)


def test_nothing_to_attach_to_is_one_clear_error() -> None:
    free = settle_ports(Ports(http=0, grpc=0, metrics=0), address="127.0.0.1")
    with pytest.raises(UserError, match="no Triton answers there"):
        attach(f"grpc://127.0.0.1:{free.grpc}")


def test_keys_are_read_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("name=a=b\n")
    key = read_key(path)
    assert (key.name, key.secret) == ("name", "a=b")
    assert "a=b" not in repr(key)
    assert key.grpc_headers() == {"triton-grpc-protocol-name": "a=b"}
    for text in ("", "name", "=x", "name="):
        path.write_text(text)
        with pytest.raises(UserError, match="name=secret"):
            read_key(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_key(tmp_path / "absent")


def test_a_process_is_never_taken_for_another_with_its_number() -> None:
    mine = ProcessIdentity.of(psutil.Process())
    assert mine.is_alive()
    for other in (
        ProcessIdentity(pid=mine.pid, ticks=mine.ticks - 1, boot=mine.boot),
        ProcessIdentity(pid=mine.pid, ticks=mine.ticks, boot="another"),
    ):
        assert not other.is_alive()
        other.kill()  # does nothing: this process goes on
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        identity = ProcessIdentity.of(psutil.Process(child.pid))
        identity.kill()
        assert not identity.is_alive()
        child.wait()


def test_probes_are_compared_within_their_tolerance() -> None:
    manifest = draft([revealing_model(1)])
    probe = manifest.variants[0].probe
    right = {"logits": np.array(probe.outputs[0].values, np.float32).reshape(probe.outputs[0].shape)}
    assert mismatch(probe, right) is None
    assert mismatch(probe, {"logits": right["logits"] + 0.04}) is None
    assert "differs by" in str(mismatch(probe, {"logits": right["logits"] + 0.06}))
    assert "differs by" in str(mismatch(probe, {"logits": right["logits"] * np.float32("nan")}))
    assert "shape" in str(mismatch(probe, {"logits": right["logits"][:1]}))
    assert "missing" in str(mismatch(probe, {}))
    assert batch_of(manifest, probe, samples=5)["image"].shape == (5, *images().shape[1:])
    np.testing.assert_array_equal(
        batch_of(manifest, probe, samples=5)["image"][4], probe_inputs(manifest, probe)["image"][0]
    )
    document = json.loads(backend_probe(manifest, manifest.variants[0]))
    assert document["inputs"][0]["dtype"] == "<f4"


def test_events_are_lines_for_people_or_programs() -> None:
    stream = io.StringIO()
    Reporter(as_json=True, stream=stream).event("switch", "a -> b", variant="b", nothing=None)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["variant"], line["message"]) == ("switch", "b", "a -> b")
    assert "nothing" not in line
    stream = io.StringIO()
    Reporter(as_json=False, stream=stream).event("switch", "a -> b", milliseconds=12.345)
    assert "a -> b  (milliseconds 12)" in stream.getvalue()


def test_a_damaged_state_begins_anew(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.write(State(compute_factor=2.0, recent_switches=(1.0,)), now=True)
    assert StateFile(tmp_path).read() == State(compute_factor=2.0, recent_switches=(1.0,))
    (tmp_path / "decision.json").write_text("{")
    assert StateFile(tmp_path).read() == State()
