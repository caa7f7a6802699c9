"""Onsets of contention on a real Triton: Edgefolio, the slowest and the fastest variant fixed, in turns.

The portfolio is what ``make demo`` made; its clients check every answer. A neighbour of two busy processes takes the
server's processor again and again.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from demo.__main__ import EXAMPLE
from demo.clients import ClientPlan, Record
from demo.corruption import withdraw_corrupted
from demo.hog import processors
from demo.load import Load, run_load
from demo.loads import FIXED_RATE, THINK_SECONDS
from demo.portfolio import objective_milliseconds, slowest_and_fastest, write_portfolio, write_requests
from demo.servers import Edgefolio, Ports
from demo.story import Event, Phase, PlacedPhase, placed
from demo.summary import percentile, slow_requests_percent

from edgefolio.manifest import Manifest
from edgefolio.repository import Repository

#: Default settings dwell for a minute, and then want ten seconds of calm: so long until the next onset.
QUIET_SECONDS, BUSY_SECONDS = 80.0, 12.0


def measure(portfolio: Path, *, onsets: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """What users saw under each server, over this many onsets each."""
    store = Repository.open(str((portfolio / "repository").resolve()))
    manifest = store.manifest(store.models()[0], 1)
    phases = placed(
        (
            Phase(event=Event.QUIET, seconds=20),
            *(
                phase
                for _ in range(onsets)
                for phase in (
                    Phase(event=Event.CPU_HOG, seconds=BUSY_SECONDS),
                    Phase(event=Event.QUIET, seconds=QUIET_SECONDS),
                )
            ),
        )
    )
    slowest, fastest = slowest_and_fastest(manifest)
    objective = objective_milliseconds(manifest)
    results: dict[str, Any] = {"objectiveMilliseconds": objective, "onsets": onsets, "servers": {}}
    for name in ("edgefolio", slowest.name, fastest.name):
        with tempfile.TemporaryDirectory(prefix="edgefolio-violations-") as scratch:
            directory = Path(scratch)
            shutil.copytree(portfolio / "repository", directory / "repository")
            withdraw_corrupted(directory / "repository", manifest)
            load = _loaded(name, directory, manifest, phases, objective=objective, progress=progress)
        results["servers"][name] = _figures(load, manifest, objective=objective)
    return results


def _loaded(
    name: str,
    directory: Path,
    manifest: Manifest,
    phases: tuple[PlacedPhase, ...],
    *,
    objective: int,
    progress: Callable[[str], None],
) -> Load:
    repository, ports = directory / "repository", Ports.free()
    server_cpus, client_cpus = processors()
    if name == "edgefolio":
        document = write_portfolio(
            EXAMPLE, directory / "portfolio.yaml", repository=repository, latency_milliseconds=objective
        )
        del document["spec"]["switching"]  # default settings
        _rewrite(directory / "portfolio.yaml", document)
        command = ["run", "-f", str(directory / "portfolio.yaml"), "--state-dir", str(directory / "state")]
    else:
        command = ["serve", "--repository", str(repository), "--model", manifest.model]
        command += ["--revision", str(manifest.revision), "--variant", name]
    tolerance = write_requests(repository, manifest, directory / "requests.npz")
    plan = ClientPlan(
        grpc_address=f"127.0.0.1:{ports.grpc}",
        http_address=f"127.0.0.1:{ports.http}",
        model=manifest.model,
        input_name=manifest.signature.inputs[0].name,
        output_name=manifest.signature.outputs[0].name,
        seconds=phases[-1].end,
        fixed_rate=FIXED_RATE,
        think_seconds=THINK_SECONDS,
        tolerance=tolerance,
        cpus=tuple(sorted(client_cpus)),
    )
    with Edgefolio([*command, "--json", *ports.options()], cpus=server_cpus, log=directory / "server.log") as server:
        server.wait_for("serving")
        return run_load(
            name=name,
            plan=plan,
            inputs=directory / "requests.npz",
            phases=phases,
            actions={},
            server_cpus=server_cpus,
            directory=directory,
            progress=progress,
        )


def _rewrite(path: Path, document: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def _figures(load: Load, manifest: Manifest, *, objective: int) -> dict[str, Any]:
    records = load.records
    end = load.phases[-1].end
    accuracy = {manifest.version_of(variant): variant.test_accuracy.percent for variant in manifest.variants}
    answered = [record for record in records if record.error is None]
    left = [
        seconds
        for phase in load.phases
        if phase.event is Event.CPU_HOG and (seconds := _left_after(answered, phase)) is not None
    ]
    latencies = [record.milliseconds for record in answered]
    return {
        "requests": len(records),
        "failed": len(records) - len(answered),
        "wrongVersion": sum(record.version is None or record.version != record.computed_by for record in answered),
        "slowPercent": slow_requests_percent(records, ((0.0, float(objective)),), end),
        "accuracyPercent": statistics.mean(accuracy[record.version] for record in answered if record.version),
        "p50": percentile(latencies, 50),
        "p95": percentile(latencies, 95),
        "p99": percentile(latencies, 99),
        "leftSeconds": left,
    }


def _left_after(answered: list[Record], phase: PlacedPhase) -> float | None:
    """Seconds from the onset to the last answer of the variant that served then; ``None`` if it was not left."""
    before = [record for record in answered if record.at < phase.start]
    if not before:
        return None
    version = max(before, key=lambda record: record.at).version
    inside = [record for record in answered if phase.start <= record.at < phase.end]
    old = [record.at + record.milliseconds / 1000 for record in inside if record.version == version]
    if not inside or max(inside, key=lambda record: record.at).version == version:
        return None
    return max(old, default=phase.start) - phase.start
