"""What a server lacks, the fixes of its age or shared memory: said in the endpoint's status and in the log."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from triton_portfolios import draft, revealing_model

from edgefolio.decision.types import State
from edgefolio_edge.agent.cycle_result import CycleResult
from edgefolio_edge.agent.records.change_log import ChangeLog
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.cluster.orders import Orders
from edgefolio_edge.cluster.status_writer import StatusWriter
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.sync_state import Synced


def condition(folder: Path, kind: str, **facts: Any) -> dict[str, str]:
    """The condition that is reported after a cycle with these facts."""
    reports: list[dict[str, Any]] = []

    def write(report: dict[str, Any]) -> bool:
        reports.append(report)
        return True

    nothing: dict[str, Any] = {"synced": Synced(), "served": None, "observation": None, "decision": None}
    writer = StatusWriter(Orders(folder, clock=lambda: 0.0), write, clock=lambda: 0.0)
    writer.after_cycle(CycleResult(**{**nothing, "state": State(), **facts}))
    (found,) = (entry for entry in reports[-1]["conditions"] if entry["type"] == kind)
    return dict(found)


@pytest.mark.parametrize(
    ("version", "status", "reason"),
    [
        ("2.51.0", "True", "OutdatedTriton"),
        ("2.70.0", "True", "OutdatedTriton"),
        ("2.74.0", "False", "NoneKnown"),
        ("3.0.0", "False", "NoneKnown"),
        ("", "Unknown", "ServerUnreachable"),
    ],
)
def test_an_endpoint_says_what_its_server_lacks(tmp_path: Path, version: str, status: str, reason: str) -> None:
    found = condition(tmp_path, "KnownVulnerabilities", server_version=version)
    assert (found["status"], found["reason"]) == (status, reason)
    assert ("CVE-2025-23310" in found["message"]) is (version == "2.51.0")
    assert len(found["message"]) <= 1024


@pytest.mark.parametrize(("mebibytes", "said"), [(None, False), (8, True), (4096, False)])
def test_a_bound_on_batches_is_said_with_the_field_that_lifts_it(
    tmp_path: Path, mebibytes: int | None, said: bool
) -> None:
    manifest = draft([revealing_model(1)])
    stream = io.StringIO()
    limit = None if mebibytes is None else mebibytes << 20
    store = ModelStore(tmp_path, model="m", shared_memory_bytes=limit)
    ChangeLog(Reporter(as_json=True, stream=stream)).bounded(manifest, store)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == (["bounded"] if said else [])
    assert all("serving.managed.sharedMemory" in line["message"] for line in lines)


@pytest.mark.parametrize(
    ("largest", "status", "reason"),
    [
        (1024, "True", "Sufficient"),
        (1, "True", "Sufficient"),
        (0, "False", "BatchBounded"),
        (None, "Unknown", "NothingSynced"),
    ],
)
def test_an_endpoint_says_that_profiled_requests_are_refused(
    tmp_path: Path, largest: int | None, status: str, reason: str
) -> None:
    manifest = draft([revealing_model(1)])
    # Of the drafted profile requests have one sample.
    synced = Synced(manifest=manifest, available=("variant-1",), complete=True)
    found = condition(tmp_path, "SharedMemorySufficient", synced=synced, largest_batch=largest)
    assert (found["status"], found["reason"]) == (status, reason)
    assert ("serving.managed.sharedMemory" in found.get("message", "")) is (status == "False")
