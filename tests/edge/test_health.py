"""What is told to whoever runs Triton, and when a server is given up; no server runs here."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from triton_portfolios import MODEL, draft, revealing_model

from edgefolio.errors import UserError
from edgefolio.specification.serving import Switching
from edgefolio_edge.agent.options import AgentOptions, AgentOutputs
from edgefolio_edge.agent.records.change_log import ChangeLog
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.agent.records.metrics import AgentMetrics
from edgefolio_edge.agent.supervisor import DEATHS_UNTIL_BLAMED, ServerSupervisor
from edgefolio_edge.health_files import Health
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.triton.endpoint import TritonEndpoint
from edgefolio_edge.triton.host import Host
from edgefolio_edge.triton.placement import Placement


def told(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_word_takes_back_what_it_contradicts(tmp_path: Path) -> None:
    health = Health(tmp_path)
    health.synced()
    health.serves()
    assert told(tmp_path) == {"synced", "serving"}
    health.condemn()
    health.condemn()
    assert told(tmp_path) == {"synced", "restart"}
    assert health.wants_restart
    health.fails()
    assert health.wants_restart, "a restart that is wanted stays wanted"
    health.serves()
    assert told(tmp_path) == {"synced", "serving"}
    health.renewed()
    assert told(tmp_path) == {"synced"}


def test_what_others_removed_is_told_again(tmp_path: Path) -> None:
    health = Health(tmp_path)
    health.serves()
    (tmp_path / "serving").unlink()
    health.serves()
    assert told(tmp_path) == {"serving"}


def test_a_new_agent_says_nothing_before_it_knows(tmp_path: Path) -> None:
    (tmp_path / "serving").touch()
    assert not Health(tmp_path).wants_restart
    assert told(tmp_path) == {"serving"}


def test_without_a_place_nothing_is_told() -> None:
    health = Health()
    for word in (health.synced, health.serves, health.fails, health.condemn, health.renewed):
        word()
    assert not health.is_enabled
    assert not health.wants_restart


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="EDGEFOLIO_HEALTH"):
        Health(tmp_path / "absent").serves()


class Away:
    """A server of somebody else's at an address where nothing answers, until the test says so."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        self.endpoint = TritonEndpoint(
            grpc=f"127.0.0.1:{port}", http=None, metrics=None, key=None, process=None, has_our_backend=False
        )
        self.answers = False
        self.said = io.StringIO()
        reporter = Reporter(as_json=True, stream=self.said)
        (folder / "health").mkdir()
        self.health = folder / "health"
        self.host = Host(self.endpoint, find=self.find)
        self.host.lose()
        self.server = ServerSupervisor(
            self.host,
            ModelStore(folder / "state", model=MODEL),
            options=AgentOptions(state_directory=folder / "state"),
            outputs=AgentOutputs(reporter=reporter, metrics=AgentMetrics(model=MODEL), health=Health(self.health)),
            changes=ChangeLog(reporter),
            switching=Switching(),
        )

    def find(self) -> TritonEndpoint:
        if not self.answers:
            raise UserError("no Triton answers there.", field="--endpoint", remedy="Start it.")
        return self.endpoint


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Away]:
    away = Away(tmp_path)
    yield away
    away.server.close()


def test_a_new_agent_leaves_the_word_of_the_last_one_until_it_knows_better(away: Away) -> None:
    (away.health / "serving").touch()
    assert not away.server.runs()
    assert away.server.trouble == "no Triton answers there."
    assert told(away.health) == {"serving"}
    away.answers = True
    assert away.server.runs()
    assert away.server.trouble is None
    assert told(away.health) == {"serving"}


def test_a_server_that_is_gone_serves_nothing_and_the_next_one_neither(away: Away) -> None:
    away.answers = True
    assert away.server.runs()
    manifest = draft([revealing_model(1)])
    away.server.verified(Placement(manifest=manifest, variant=manifest.variants[0]))
    starts = away.server.starts
    assert away.server.ready_versions() is None, "nothing listens there"
    assert told(away.health) == set()
    away.server.restart_or_request("test")
    assert told(away.health) == {"restart"}
    assert away.server.runs()
    assert told(away.health) == set(), "another one answers: the restart has come"
    assert away.server.starts == starts + 1


def test_a_server_that_ends_is_chance_and_one_that_ends_each_time_is_the_variant_s_fault(away: Away) -> None:
    assert DEATHS_UNTIL_BLAMED == 2
    assert not away.server.ended_during("large")
    assert not away.server.ended_during("small")
    assert not away.server.ended_during("large")
    assert away.server.ended_during("large")
    assert not away.server.ended_during("large"), "blamed once, it is quarantined; the count begins anew"
    manifest = draft([revealing_model(1)])
    away.server.verified(Placement(manifest=manifest, variant=manifest.variants[0]))
    assert not away.server.ended_during("large")


def test_a_restart_is_asked_for_and_said_once(away: Away) -> None:
    assert not away.server.restart_or_request("It hangs.")
    assert not away.server.restart_or_request("It hangs.")
    assert away.said.getvalue().count("Triton must be restarted. It hangs.") == 1
    failure = away.server.failure
    assert failure is not None
    assert (failure.reason, failure.message) == ("RestartNeeded", "Triton must be restarted. It hangs.")
