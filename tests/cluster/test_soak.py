"""The soak's own arithmetic: what is drawn, what counts as failed and as wrong. No cluster is needed."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from benchmarks.soak.connections import Connections, servers_of
from benchmarks.soak.faults import KINDS, Kind
from benchmarks.soak.logs import KEPT_FAULTS, TAIL_BYTES, PodLogs
from benchmarks.soak.memory import Sample, growth
from benchmarks.soak.report import is_sound, markdown, summary
from benchmarks.soak.turns import Struck, Turn, strike, turns
from drafts import publish_draft
from edge_client import Request
from edge_revisions import POISONED, publish_again, publish_poisoned

from edgefolio.errors import IntegrityError
from edgefolio.repository import Repository
from edgefolio.untrusted.model_file import check_onnx_file

NODES = ("edge-1", "edge-2")
QUIET = Kind(name="nothing", strike=lambda *_: nullcontext())
KILL = Kind(name="kill", strike=lambda *_: nullcontext(), ends_triton=True)
CUT = Kind(name="cut", strike=lambda *_: nullcontext(), parts=True)
FACTS: dict[str, Any] = {"command": "soak", "seed": 1, "commit": "1", "nodes": 2, "machine": {"logicalCpus": 2}}


def drawn(seed: int, count: int) -> list[Turn]:
    return list(islice(turns(seed, NODES), count))


def test_equal_seeds_give_equal_turns() -> None:
    assert drawn(7, 100) == drawn(7, 100)
    assert drawn(7, 100) != drawn(8, 100)


def test_every_kind_comes_once_before_one_comes_again() -> None:
    found = drawn(3, 2 * len(KINDS))
    for half in (found[: len(KINDS)], found[len(KINDS) :]):
        assert {turn.kind.name for turn in half} == {kind.name for kind in KINDS}
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def request(due: float, *, version: int = 101, answer: float | None = 1.0, error: str | None = None) -> Request:
    return Request(due=due, milliseconds=1.0, version=version, error=error, answer=answer)


def struck(kind: Kind, began: float, converged_at: float | None) -> Struck:
    return Struck(
        kind=kind, node="edge-1", began=began, ended=began, converged_at=converged_at, given_up_at=began + 300
    )


def test_requests_are_counted_by_fault_and_excused_on_the_killed_node_alone() -> None:
    requests = {
        "edge-1": [request(10), request(105, error="gone"), request(140, error="gone"), request(205, answer=2.0)],
        "edge-2": [request(105, error="gone"), request(206), request(207)],
    }
    found = summary(requests, [struck(KILL, 100, 110), struck(QUIET, 200, 210)], (), began=0, seconds=300)
    assert (found["requests"], found["failedAtNodesThatWereUp"], found["failedWhereTritonWasKilled"]) == (7, 2, 1)
    assert found["wrongAnswers"] == 1
    kill, quiet = found["faults"]
    assert (kill["requests"], kill["failed"], kill["excused"], kill["wrongAnswers"]) == (2, 1, 1, 0)
    assert (quiet["requests"], quiet["failed"], quiet["excused"], quiet["wrongAnswers"]) == (3, 0, 0, 1)
    assert kill["p50Seconds"] == 10.0


@pytest.mark.parametrize(
    ("client", "led", "due", "excused"),
    [
        pytest.param("edge-2", {"edge-1"}, 100.2, 1, id="on its way to the node that is cut off"),
        pytest.param("edge-1", {"edge-2"}, 100.2, 1, id="on its way from the node that is cut off"),
        pytest.param("edge-2", {"edge-2"}, 100.2, 0, id="at home"),
        pytest.param("edge-1", {"edge-1"}, 100.2, 0, id="at home on the node that is cut off"),
        pytest.param("edge-2", {"edge-1", "edge-2"}, 100.2, 0, id="perhaps at home"),
        pytest.param("edge-2", set(), 100.2, 0, id="nobody knows where"),
        pytest.param("edge-2", {"edge-1"}, 110.0, 0, id="long after the cut"),
        pytest.param("edge-2", {"edge-1"}, 90.0, 0, id="before the cut"),
    ],
)
def test_a_failure_across_a_cut_cable_is_excused_where_the_connection_led_across(
    client: str, led: set[str], due: float, excused: int
) -> None:
    connections = Connections(NODES)
    connections.note(client, 50, frozenset({"edge-1", "edge-2"}))
    connections.note(client, 80, frozenset(led))
    connections.note(client, 100.1, frozenset())
    found = summary(
        {client: [request(due, error="lost")]},
        [struck(CUT, 100, 130)],
        (),
        began=0,
        seconds=200,
        led_to=connections.led_to,
    )
    assert found["failedOnTheWayToAnotherNode"] == excused
    assert found["failedAtNodesThatWereUp"] == 1 - excused


def test_the_table_of_connections_says_who_answers_a_client() -> None:
    table = """\
tcp      6 431999 ESTABLISHED src=10.244.2.13 dst=10.244.1.15 sport=58532 dport=8001 src=10.244.1.15 dst=10.244.2.13 sport=8001 dport=58532 [ASSURED] mark=0 use=1
tcp      6 431999 ESTABLISHED src=10.244.1.21 dst=10.96.147.251 sport=52384 dport=8001 src=10.244.3.15 dst=10.244.1.21 sport=8001 dport=52384 [ASSURED] mark=0 use=1
tcp      6 110 TIME_WAIT src=10.244.1.21 dst=10.96.147.251 sport=52380 dport=8001 src=10.244.2.15 dst=10.244.1.21 sport=8001 dport=52380 [ASSURED] mark=0 use=1
"""  # noqa: E501
    assert servers_of(table, "1") == {"3"}
    assert servers_of(table, "2") == frozenset()


@pytest.mark.parametrize(
    ("change", "sound"),
    [
        pytest.param({}, True, id="as it should be"),
        pytest.param({"failedAtNodesThatWereUp": 1}, False, id="a failure"),
        pytest.param({"wrongAnswers": 1}, False, id="a wrong answer"),
        pytest.param({"endedBy": "a signal"}, False, id="ended early"),
        pytest.param({"convergedAtEnd": False}, False, id="not converged at the end"),
    ],
)
def test_the_verdict(change: dict[str, Any], sound: bool) -> None:
    found = summary({"edge-1": [request(1)]}, [struck(QUIET, 0, 5)], (), began=0, seconds=10)
    content = {**FACTS, **found, "endedBy": None, "convergedAtEnd": True, **change}
    assert is_sound(content) is sound
    assert "| nothing | 1 | 1 | 5.0 | 5.0 | 1 | 0 | 0 | 0 |" in markdown(content)


def test_what_did_not_converge_or_could_not_be_made_is_said() -> None:
    found = summary({}, [struck(QUIET, 0, None)], (), began=0, seconds=10)
    content = {**FACTS, **found, "endedBy": None, "convergedAtEnd": True}
    assert not is_sound(content)
    assert "nothing (edge-1): did not converge" in markdown(content)


def test_a_fault_that_cannot_be_made_does_not_end_the_soak() -> None:
    def impossible(*_: object) -> AbstractContextManager[None]:
        raise AssertionError("no such pod")

    turn = Turn(kind=Kind(name="impossible", strike=impossible), node="edge-1", seed=1)
    site: Any = None
    found = strike(turn, site, converged=lambda: True, longest=10)
    assert found.trouble == "AssertionError: no such pod"
    assert found.converged_at is not None


def test_growth_is_that_of_the_process_that_lived_longest() -> None:
    def sample(at: float, process: int, mebibytes: int) -> Sample:
        return Sample(at=at, name="agent", process=process, resident=mebibytes << 20)

    found = growth([sample(0, 1, 50), sample(100, 1, 52), sample(110, 2, 40), sample(120, 2, 48)])
    assert found["agent"] == {
        "firstMebibytes": 50,
        "lastMebibytes": 48,
        "mostMebibytes": 52,
        "processes": 2,
        "longestLivedSeconds": 100,
        "longestLivedGrewMebibytes": 2,
    }


def test_logs_of_pods_that_are_gone_are_kept(tmp_path: Path) -> None:
    pods = tmp_path / "run" / "edge-1" / "log" / "pods"
    for pod in ("site_digits-abcde_1", "site_client-edge-1-5_2", "kube-system_digits-x_3", "site_digits-quiet_4"):
        (pods / pod / "triton").mkdir(parents=True)
        (pods / pod / "triton" / "0.log").write_text("first" + "x" * TAIL_BYTES + "last")
    (tmp_path / "run").mkdir(exist_ok=True)
    kept = tmp_path / "soak-logs"
    logs = PodLogs(tmp_path / "run", ["edge-1", "edge-2"], kept=kept)
    with logs:
        logs.look()
        shutil.rmtree(pods / "site_digits-abcde_1")
        os.utime(pods / "site_digits-quiet_4" / "triton" / "0.log", (1, 1))
        logs.keep("00012 Triton killed, edge-1", since=100, note="pods")
        (found,) = kept.iterdir()
        assert (found / "cluster.txt").read_text() == "pods"
        (log,) = found.glob("*.log")
        assert log.name.startswith("edge-1_digits-abcde_triton_0_")
        assert log.read_text().endswith("last")
        assert log.stat().st_size == TAIL_BYTES
        for number in range(KEPT_FAULTS + 5):
            logs.keep(f"fault {number}", since=0, note="")
        assert len(list(kept.iterdir())) == KEPT_FAULTS


class Following:
    """A bucket that a site follows, and what it serves."""

    def __init__(self, folder: Path) -> None:
        self.bucket = folder
        self.kubernetes = self
        self.asked = 0
        self.serve(publish_draft(str(folder / "site"), folder / "files").revision)

    def serve(self, revision: int) -> None:
        self.served = revision

    def endpoints(self) -> dict[str, Any]:
        return {"edge-1": {"status": {"activeRevision": self.served}}, "edge-2": {}}

    def kubectl(self, *_arguments: str) -> str:
        self.asked += 1
        return ""


@pytest.mark.parametrize("poison", POISONED)
def test_a_poisoned_revision_is_poisoned_and_the_next_is_good(tmp_path: Path, poison: str) -> None:
    place = Following(tmp_path)
    site: Any = place
    repository = Repository.open(str(tmp_path / "site"))
    first = repository.manifest("digits", 1)

    def faults(revision: int) -> set[str]:
        found = set()
        pointer, manifest = repository.current_manifest("digits")
        assert pointer.revision == revision
        for variant, before in zip(manifest.variants, first.variants, strict=True):
            if variant.probe != before.probe:
                found.add(POISONED[1])
            try:
                path = repository.fetch(manifest, variant, tmp_path / f"{revision}-{variant.name}.onnx")
            except IntegrityError:
                found.add(POISONED[0])
                continue
            try:
                check_onnx_file(path)
            except IntegrityError:
                found.add(POISONED[2])
        return found

    assert publish_poisoned(site, poison).revision == 2
    assert faults(2) == {poison}
    assert publish_again(site).revision == 3
    assert faults(3) == set()
    assert place.asked == 2
