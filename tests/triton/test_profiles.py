"""``edgefolio run`` with a profile of its own class of processors: predicted with from the first decision on."""

from __future__ import annotations

from pathlib import Path

from draft_profiles import draft_node_profile
from triton_agent import Command, write_portfolio
from triton_portfolios import MODEL, publish, revealing_model

from edgefolio.processor import this_processor
from edgefolio.repository import Repository
from edgefolio.repository.profiles import publish_profile

ANY_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def test_the_profile_of_this_machine_decides_and_is_named(tmp_path: Path) -> None:
    repository, file = tmp_path / "portfolios", tmp_path / "portfolio.json"
    models = [revealing_model(1, width=4), revealing_model(2, width=8)]
    manifest = publish(repository, models, milliseconds=[0.05, 0.4])
    write_portfolio(file, repository=repository, model=MODEL, objectives={"latencyP95Milliseconds": 200})

    def run(*options: str) -> Command:
        state = ("--state-dir", str(tmp_path / "state"))
        return Command("run", "-f", str(file), "--json", *state, *ANY_PORTS, *options)

    with run("--dry-run") as watched:
        decision = watched.wait_for("decision")
        assert decision["target"] == "variant-2"
        assert "the profile in the manifest" in decision["profile"].lower()
    # On this class of processors everything takes a thousand times as long: 400 ms is too much, 50 ms is not.
    publish_profile(Repository.open(str(repository)), draft_node_profile(manifest, this_processor(), times=1000))
    with run("--dry-run") as watched:
        decision = watched.wait_for("decision")
        assert decision["target"] == "variant-1"
        assert this_processor().class_name in decision["profile"]
    with run() as agent:
        agent.wait_for("serving")
        held = [line for line in agent.events("profile") if "digest" in line]
        found = held[0] if held else agent.wait_for("profile", digest=_digest(repository))
        assert "own class" in found["message"]
        assert agent.stop() == 0
    # Started again it knows from its disk, and begins with the right one.
    with run() as agent:
        assert agent.wait_for("serving")["variant"] == "variant-1"
        assert agent.wait_for("decision", active="variant-1")["profile"] == found["message"]
        assert agent.stop() == 0


def _digest(repository: Path) -> str:
    from edgefolio.manifest import sha256_of
    from edgefolio.repository import layout

    return sha256_of((repository / layout.profile_path(MODEL, 1, this_processor().class_name)).read_bytes())
