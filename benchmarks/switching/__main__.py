"""Measure switching and write the figures.

python -m benchmarks.switching [--requests 100000] [--switches 100] [--output benchmarks/results/switching.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.switching.load import Load, SwitchRecord, figures
from benchmarks.switching.portfolio import MODEL, images, publish

from edgefolio.manifest import Manifest
from edgefolio.processor import this_processor
from edgefolio.repository import Repository
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.triton_configuration import BACKEND
from edgefolio_edge.observation.memory import processes_memory
from edgefolio_edge.triton.client import TritonControl
from edgefolio_edge.triton.launcher.command_line import ServerSettings
from edgefolio_edge.triton.launcher.ports import Ports
from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.launcher.wheel import TRITON_VERSION
from edgefolio_edge.triton.placement import Placement
from edgefolio_edge.triton.switcher import Switcher

VARIANTS = 4
PLAIN_BACKEND = Path(__file__).parent / "plain_backend.py"
NICENESS = "EDGEFOLIO_LOADING_NICENESS"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A server with the portfolio on disk."""

    server: TritonServer
    control: TritonControl
    switcher: Switcher
    manifest: Manifest

    def placement(self, rank: int) -> Placement:
        """The variant of this rank."""
        return Placement(manifest=self.manifest, variant=self.manifest.variants[rank - 1])


@contextmanager
def open_site(
    directory: Path, manifest: Manifest, repository: Path, *, niceness: int | None = None, plain: bool = False
) -> Iterator[Site]:
    """A server of its own, with loads at ``niceness`` (the backend's own choice by default), or a ``plain`` backend."""
    store = ModelStore(directory / "state", model=MODEL)
    for variant in manifest.variants:
        store.fetch(Repository.open(str(repository)), manifest, variant)
    before = os.environ.pop(NICENESS, None)
    if niceness is not None:
        os.environ[NICENESS] = str(niceness)
    try:
        settings = ServerSettings(model_repository=store.model_repository, ports=Ports(http=0, grpc=0, metrics=0))
        server = TritonServer.start(settings)
    finally:
        os.environ.pop(NICENESS, None)
        if before is not None:
            os.environ[NICENESS] = before
    if plain:
        # Read anew at each load, so this takes effect from the first one on.
        shutil.copy(PLAIN_BACKEND, server.runtime / "backends" / BACKEND / "model.py")
    control = server.control()
    try:
        yield Site(server=server, control=control, switcher=Switcher(control, store), manifest=manifest)
    finally:
        control.close()
        server.stop()


def switch_under_load(
    site: Site, *, requests: int, switches: int, clients: int, think_seconds: float, directory: Path, standby: bool
) -> dict[str, Any]:
    """``switches`` spread over about ``requests`` requests. With ``standby`` rank 1 stays loaded all the time."""
    smallest = site.placement(1)
    assert site.switcher.switch(smallest).succeeded
    records: list[SwitchRecord] = []
    with Load(site.server, model=MODEL, processes=clients, think_seconds=think_seconds, directory=directory) as load:
        time.sleep(2)
        rate = _rate(site)
        interval = max(1.0, requests / rate / (switches + 1))
        ranks = cycle([2, 1]) if standby else cycle([2, 4, 1, 3])
        for number in range(switches):
            time.sleep(interval)
            target = site.placement(next(ranks))
            beside = [smallest] if standby and target != smallest else []
            began = time.monotonic()
            outcome = site.switcher.switch(target, standby=beside)
            returned = time.monotonic()
            assert outcome.succeeded, f"{outcome.cause}\n{site.server.log_tail(40)}"
            records.append(
                SwitchRecord(
                    began=began, returned=returned, version=target.version, load_milliseconds=outcome.load_milliseconds
                )
            )
            if (number + 1) % 10 == 0:
                print(f"  {number + 1} switches", file=sys.stderr, flush=True)
        time.sleep(interval)
    rows = load.rows()
    result = figures(rows, records, first_rank_version=smallest.version)
    if standby:
        down = figures(rows, records[1::2], first_rank_version=smallest.version)
        result["downshift"] = {"switch": down["switchMilliseconds"], "duringSwitch": down["duringSwitch"]}
    return result


def restart(site: Site, rounds: int) -> dict[str, Any]:
    """What it would take to change the variant by restarting the server instead: until the first answer."""
    seconds = []
    for _ in range(rounds):
        began = time.monotonic()
        server = TritonServer.start(site.server.settings)
        control = server.control()
        try:
            assert Switcher(control, site.switcher.store).switch(site.placement(2)).succeeded
            started = time.monotonic() - began
            stopping = time.monotonic()
        finally:
            control.close()
            server.stop()
        seconds.append((started, time.monotonic() - stopping))
    return {
        "rounds": rounds,
        "startUntilFirstAnswerMilliseconds": round(1e3 * statistics.median(start for start, _ in seconds)),
        "stopMilliseconds": round(1e3 * statistics.median(stop for _, stop in seconds)),
    }


def memory(site: Site) -> dict[str, Any]:
    """Proportional set size of server and backends: one variant, all of them, and the highest during a switch."""
    assert site.switcher.switch(site.placement(1)).succeeded
    time.sleep(3)
    one = processes_memory(site.server.identity) or 0
    standby = [site.placement(rank) for rank in range(1, VARIANTS)]
    assert site.switcher.switch(site.placement(VARIANTS), standby=standby).succeeded
    for rank in range(1, VARIANTS + 1):
        site.control.infer(MODEL, {"image": images()}, version=site.placement(rank).version)
    time.sleep(1)
    everything = processes_memory(site.server.identity) or 0
    assert site.switcher.switch(site.placement(1)).succeeded
    time.sleep(3)
    assert site.switcher.switch(site.placement(2)).succeeded
    both = processes_memory(site.server.identity) or 0
    return {
        "oneVariantMebibytes": round(one / 2**20, 1),
        "allVariantsMebibytes": round(everything / 2**20, 1),
        "justAfterASwitchMebibytes": round(both / 2**20, 1),
        "variants": VARIANTS,
    }


def main() -> None:
    """Run all parts and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--switches", type=int, default=100)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--think-milliseconds", type=float, default=8.0)
    parser.add_argument("--share", type=float, default=0.15, help="part of the load that each comparison gets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/switching.json"))
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": _machine(options)}
    with tempfile.TemporaryDirectory(prefix="edgefolio-switching-") as name:
        directory = Path(name)
        repository = directory / "portfolios"
        manifest = publish(repository, variants=VARIANTS)

        def measured(
            label: str,
            *,
            share: float = 1.0,
            niceness: int | None = None,
            standby: bool = False,
            plain: bool = False,
        ) -> None:
            print(label, file=sys.stderr, flush=True)
            with open_site(directory, manifest, repository, niceness=niceness, plain=plain) as site:
                result[label] = switch_under_load(
                    site,
                    requests=int(options.requests * share),
                    switches=max(2, int(options.switches * share)),
                    clients=options.clients,
                    think_seconds=options.think_milliseconds / 1e3,
                    directory=directory,
                    standby=standby,
                )
            result[label]["loadAverageAfter"] = os.getloadavg()[0]

        measured("switching")
        measured("standby", share=options.share, standby=True)
        measured("plainBackend", share=options.share, plain=True)
        for niceness in (0, 5, 19):
            measured(f"loadingAtNiceness{niceness}", share=options.share, niceness=niceness)
        with open_site(directory, manifest, repository) as site:
            result["restart"] = restart(site, rounds=5)
            result["memory"] = memory(site)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _rate(site: Site) -> float:
    """Requests per second now."""

    def count() -> int:
        return sum(entry.successes for entry in site.control.statistics(MODEL))

    before, began = count(), time.monotonic()
    time.sleep(2)
    return max(1.0, (count() - before) / (time.monotonic() - began))


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    packages = ("nvidia-pytriton", "onnxruntime", "numpy", "tritonclient")
    return {
        "processor": this_processor().model,
        "logicalCpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "triton": TRITON_VERSION,
        "packages": {name: version(name) for name in packages},
        "loadAverageBefore": os.getloadavg()[0],
        "clients": options.clients,
        "thinkMilliseconds": options.think_milliseconds,
        "command": "python -m benchmarks.switching",
    }


if __name__ == "__main__":
    main()
