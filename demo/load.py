"""One load: a server under test, the clients, and the disturbances of the story at their time."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from demo.clients import ClientPlan, Record
from demo.hog import CpuHog
from demo.servers import Edgefolio
from demo.story import Event, PlacedPhase

#: Busy processes during the hog, all on the server's processors.
HOG_PROCESSES = 2


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came out of one load. ``start`` is the monotonic instant from which all times count."""

    start: float
    phases: tuple[PlacedPhase, ...]
    records: tuple[Record, ...]


def run_load(
    *,
    name: str,
    plan: ClientPlan,
    inputs: Path,
    phases: tuple[PlacedPhase, ...],
    actions: dict[Event, Callable[[], None]],
    server_cpus: frozenset[int],
    directory: Path,
    progress: Callable[[str], None],
) -> Load:
    """Run the clients through ``phases``; ``actions`` are called when a phase of that event begins."""
    plan_path, records_path = directory / f"{name}-plan.json", directory / f"{name}-records.jsonl"
    plan_path.write_text(json.dumps(asdict(plan)))
    with _clients(plan_path, inputs, records_path) as clients:
        # The clients start their clock after their imports: wait for the first byte they write to standard output.
        assert clients.stdout is not None
        clients.stdout.readline()
        start = time.monotonic()
        for phase in phases:
            progress(f"{name}: {phase.event.value} ({phase.end - phase.start:.0f} s)")
            with _disturbance(phase, server_cpus):
                if action := actions.get(phase.event):
                    action()
                time.sleep(max(0.0, start + phase.end - time.monotonic()))
        clients.wait(timeout=60)
    if clients.returncode != 0:
        raise RuntimeError(f"the clients of load {name!r} ended with {clients.returncode}")
    records = tuple(Record(**json.loads(line)) for line in records_path.read_text().splitlines())
    return Load(start=start, phases=phases, records=records)


@contextlib.contextmanager
def _clients(plan: Path, inputs: Path, records: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "demo.clients", str(plan), str(inputs), str(records)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextlib.contextmanager
def _disturbance(phase: PlacedPhase, server_cpus: frozenset[int]) -> Iterator[None]:
    if phase.event is Event.CPU_HOG:
        with CpuHog(cpus=server_cpus, processes=HOG_PROCESSES, seconds=phase.end - phase.start + 5):
            yield
    else:
        yield


def switches_server(server: Edgefolio, since: float) -> list[tuple[float, dict[str, object]]]:
    """The agent's switches, by arrival relative to ``since``."""
    return [(at - since, line) for at, line in server.events("switch", since=since)]
