"""Steps of the wall clock under load: nothing happens, whatever the step and whenever it comes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from triton_agent import Command, write_portfolio
from triton_load import Clients, failed
from triton_portfolios import MODEL, publish, revealing_model
from triton_remains import remains_of

from edgefolio_edge.triton.launcher.server_record import recorded_server

YEAR = 365 * 86_400
#: Moves ``time.time()`` and the boot time of psutil together, as the kernel moves both. gRPC is left alone: it makes a
#: deadline of ``time.time()`` and hands it to the kernel's clock at once, which no step can come between.
_SHIFT = """
import os, sys, time
from pathlib import Path

_real = time.time

def _shift():
    return float(Path(os.environ["SHIFT_FILE"]).read_text())

def shifted():
    caller = sys._getframe(1).f_globals.get("__name__", "")
    return _real() + (0.0 if caller.startswith("grpc") else _shift())

time.time = shifted
import psutil
_boot_time = psutil._psplatform.boot_time
psutil._psplatform.boot_time = psutil.boot_time = lambda: _boot_time() + _shift()
"""


def test_steps_of_seconds_and_of_years_change_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    repository, state, file = tmp_path / "portfolios", tmp_path / "state", tmp_path / "portfolio.json"
    publish(repository, [revealing_model(tag, width=4 * tag) for tag in (1, 2)])
    write_portfolio(file, repository=repository, model=MODEL)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_SHIFT)
    shift = tmp_path / "shift"

    def step(seconds: float) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text(str(seconds))
        fresh.replace(shift)

    def run(*ports: str) -> Command:
        environment = {"PYTHONPATH": str(tmp_path / "site"), "SHIFT_FILE": str(shift)}
        options = ("run", "-f", str(file), "--json", "--state-dir", str(state), *ports)
        return Command(*options, environment=environment)

    step(0)
    agent = run("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    serving = agent.wait_for("serving")
    server = recorded_server(state)
    assert server is not None
    with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=1, think=0.01) as clients:
        for number, seconds in enumerate((10, -30, 20 * YEAR, -40 * YEAR, 1.5), start=2):
            step(seconds)
            time.sleep(1.5)
            # It is in control: it takes the next revision.
            publish(repository, [revealing_model(tag, width=4 * tag) for tag in (number, number + 1)])
            agent.wait_for("switch", version=100 * number + 2)
        # Killed, the clock corrected, started again: it finds its server by its start since boot.
        agent.kill()
        step(3 * YEAR)
        with run("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0") as second:
            assert second.wait_for("serving")["adopted"] is True
            publish(repository, [revealing_model(tag, width=4 * tag) for tag in (8, 9)])
            second.wait_for("switch", version=702)
            again = recorded_server(state)
            assert again is not None
            assert again.identity == server.identity
            clients.wait_for(len(clients.requests()) + 20)
            clients.__exit__()
            assert second.stop() == 0
    record_property("requests", len(clients.requests()))
    record_property("failed", len(failed(clients.requests())))
    assert failed(clients.requests()) == []
    assert not {"died", "dead", "silent", "stuck", "error"} & {line["event"] for line in agent.lines + second.lines}
    assert remains_of(server) == ()
    assert json.loads((state / "decision.json").read_text())["clock"]["boot"] == server.identity.boot
