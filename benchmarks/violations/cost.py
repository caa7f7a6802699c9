"""What observation costs on a real Triton: processor time of the agent and of the server for each reading."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from benchmarks.switching.__main__ import open_site
from benchmarks.switching.portfolio import MODEL, images, publish

from edgefolio.decision.evidence import READING_SECONDS
from edgefolio.specification import Switching
from edgefolio_edge.observation.observer import Observer
from edgefolio_edge.triton.client import TritonControl

RATE = 20.0


def measure(*, seconds: float = 20.0) -> dict[str, Any]:
    """Processor time of a reading and of a whole observation, in milliseconds and in percent of one core."""
    with tempfile.TemporaryDirectory(prefix="edgefolio-violations-") as name:
        directory = Path(name)
        manifest = publish(directory / "portfolios", variants=2)
        with open_site(directory, manifest, directory / "portfolios") as site:
            active = site.placement(1)
            assert site.switcher.switch(active).succeeded
            observer = Observer(site.server.endpoint(), site.control, site.switcher, switching=Switching())
            observer.switched(active.version)
            client = multiprocessing.get_context("spawn").Process(
                target=_requests, args=(site.server.grpc_endpoint,), daemon=True
            )
            client.start()
            while not any(entry.successes > RATE for entry in site.control.statistics(MODEL)):
                time.sleep(0.2)
            server = psutil.Process(site.server.identity.pid)
            without = _server_share(server, seconds / 2, lambda: None)
            readings: list[float] = []
            cycles: list[float] = []

            def read() -> None:
                begun = time.process_time()
                assert observer.read_between()
                readings.append(1e3 * (time.process_time() - begun))

            def observe() -> None:
                begun = time.process_time()
                observer.observe(active, resident=(active.variant.name,))
                cycles.append(1e3 * (time.process_time() - begun))

            observe()
            observe()
            with_readings = _server_share(server, seconds, read, every=READING_SECONDS)
            for _ in range(20):
                time.sleep(0.2)
                observe()
            client.kill()
            client.join()
            observer.close()
    return {
        "requestsPerSecond": RATE,
        "readings": len(readings),
        "readingMilliseconds": {
            "median": round(statistics.median(readings), 3),
            "mean": round(statistics.mean(readings), 3),
        },
        "agentPercentOfACore": round(statistics.mean(readings) / 10 / READING_SECONDS, 3),
        "serverPercentOfACore": {"without": round(without, 2), "with": round(with_readings, 2)},
        "observationMilliseconds": round(statistics.median(cycles), 3),
    }


def _server_share(server: psutil.Process, seconds: float, act: Any, *, every: float = 0.25) -> float:
    """Percent of a core that the server itself (its backends apart) used, while ``act`` was called regularly."""
    before, begun = sum(server.cpu_times()[:2]), time.monotonic()
    while time.monotonic() - begun < seconds:
        act()
        time.sleep(every)
    return 100 * (sum(server.cpu_times()[:2]) - before) / (time.monotonic() - begun)


def _requests(endpoint: str) -> None:
    control = TritonControl(endpoint)
    while True:
        control.infer(MODEL, {"image": images()})
        time.sleep(1 / RATE)
