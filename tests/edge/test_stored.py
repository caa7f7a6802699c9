"""What an agent of the release before left on its volume (``stored/``, from 244bc78) is taken up again."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from edgefolio.decision import state_from_json, state_to_json
from edgefolio.decision.types import State
from edgefolio_edge.agent.records.state_files import StateFile
from edgefolio_edge.cluster.orders import Orders
from edgefolio_edge.triton.launcher.server_record import recorded_server


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).parent / "stored", tmp_path / "state"))


def test_the_state_of_the_core_is_resumed_whole(volume: Path) -> None:
    state = StateFile(volume).read()
    defaults = State()
    unset = {part.name for part in fields(State) if getattr(state, part.name) == getattr(defaults, part.name)}
    newer = {"calm_since", "slowest_factor", "slowest_updated_at", "standby_released_at", "descent", "latency_test"}
    newer |= {"own_factors", "computing", "peers_lost_since", "late_fallback_since"}
    assert unset == newer
    assert json.loads(state_to_json(state)) == json.loads((volume / "decision.json").read_text())


def test_its_clock_goes_on_and_an_agent_of_the_release_before_ignores_it(volume: Path) -> None:
    file = StateFile(volume)
    state = file.read()
    file.write(state, now=True)
    written = json.loads((volume / "decision.json").read_text())
    assert written.pop("clock").keys() == {"boot", "sinceBoot", "time"}
    assert state_from_json(json.dumps({**written, "clock": {}})) == state


def test_the_last_order_holds(volume: Path) -> None:
    orders = Orders(volume)
    assert orders.order is not None
    assert json.loads(orders.order.spec.model_dump_json(by_alias=True, exclude_none=True)) == json.loads(
        (volume / "orders.json").read_text()
    )
    assert orders.revision == (2, "a" * 64)
    assert orders.objectives.pinned_variant == "dense"
    assert (orders.objectives.max_memory_bytes, orders.objectives.min_accuracy_percent) == (256 * 2**20, 85.0)
    assert (orders.switching.down_after_seconds, orders.switching.autonomy_after_seconds) == (3, 30)


def test_a_running_server_is_found_again(volume: Path) -> None:
    server = recorded_server(volume)
    assert server is not None
    recorded = json.loads((volume / "server.json").read_text())
    assert asdict(server.key) == recorded["key"]
    assert asdict(server.ports) == recorded["ports"]
    # Whether it still runs is not told by the wall time in the record, but by the process's own command line.
    assert server.identity.pid == recorded["identity"]["pid"]
    assert not server.identity.is_alive()
    assert (str(server.runtime), server.shared_memory_prefix) == (
        recorded["runtime"],
        recorded["shared_memory_prefix"],
    )
    settings = {**asdict(server.settings), "model_repository": str(server.settings.model_repository)}
    # A release from before splits wrote it.
    assert settings == {**recorded["settings"], "worker_folder": None}
