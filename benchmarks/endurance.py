"""What 300 switches between variants of 25 MB, and 20 kills while one loads, leave behind: memory, files, service.

    .venv-edge/bin/python -m benchmarks.endurance                    # about half an hour on two busy cores
    .venv-edge/bin/python -m benchmarks.endurance --switches 40 --kills 2 --output /tmp/endurance.json

One ``edgefolio run`` with a real Triton, as a user starts it; its objective is changed to and fro, and a client asks
all the time. After the switches, the backend process of the variant that is being loaded is killed with SIGKILL, as the
kernel does where memory runs out, at moments that a seed draws from the length of a load. The result is written to
``benchmarks/results/endurance.json``. Exit code 1 if something grew by more than 5 %, an answer was wrong, a request
failed during the switches, a killed load was not made good, or something was left at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import tritonclient.grpc as triton_grpc

ROOT = Path(__file__).resolve().parents[1]
# The nets are those of the tests, and so is the way to start the agent.
sys.path.extend(str(ROOT / "tests" / folder) for folder in ("shared", "triton"))

from triton_agent import Command, write_portfolio  # noqa: E402
from triton_portfolios import MODEL, images, publish, revealed_tag, revealing_model  # noqa: E402
from triton_remains import remains_of  # noqa: E402

from edgefolio_edge.triton.launcher.server import TritonServer  # noqa: E402
from edgefolio_edge.triton.launcher.server_record import recorded_server  # noqa: E402
from edgefolio_edge.triton.launcher.wheel import TRITON_VERSION  # noqa: E402
from edgefolio_edge.triton.processes import stub_of_version  # noqa: E402

#: Four layers of this width weigh 25 MB; small pictures keep their answers fast.
WIDTH, LAYERS, SIZE = 484, 4, 2
#: Objectives under which variant 1, or 2, is the most accurate that fits: their profiles say 1 and 2 MiB.
OBJECTIVES: dict[int, dict[str, object]] = {1: {"maxMemory": "1536Ki"}, 2: {}}
#: A failed variant is tried again after this, twice as long each time it fails again.
QUARANTINE_SECONDS = 1
ALLOWED_GROWTH = 0.05
#: More descriptors, threads or processes: some are of the moment, as of a connection that is being closed.
ALLOWED_COUNTS = 2
LONGEST_SECONDS = 300.0


class Client:
    """One client that asks all the time; a context manager. ``think`` seconds between two requests."""

    def __init__(self, endpoint: str, *, think: float) -> None:
        self.answered = self.failed = self.wrong = 0
        self.last_tag: int | None = None
        self.errors: set[str] = set()
        self._endpoint, self._think = endpoint, think
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def summary(self) -> dict[str, Any]:
        counts = {"answered": self.answered, "failed": self.failed, "wrong": self.wrong}
        return {**counts, **({"errors": sorted(self.errors)} if self.errors else {})}

    def _ask(self) -> None:
        client = triton_grpc.InferenceServerClient(self._endpoint)
        tensor = triton_grpc.InferInput("image", [1, 1, SIZE, SIZE], "FP32")
        tensor.set_data_from_numpy(images(size=SIZE))
        while not self._stop.wait(self._think):
            try:
                result = client.infer(MODEL, [tensor], client_timeout=30)
            except Exception as error:
                self.failed += 1
                self.errors.add(str(error)[:200])
                continue
            self.answered += 1
            self.last_tag = revealed_tag(result.as_numpy("logits"))
            self.wrong += int(result.get_response().model_version) != 100 + self.last_tag
        client.close()


class Site:
    """A repository with two variants and the agent that serves them."""

    def __init__(self, folder: Path) -> None:
        self.repository, self.file, self.state = (
            folder / "portfolios",
            folder / "portfolio.json",
            folder / "state",
        )
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        models = [revealing_model(tag, width=WIDTH, layers=LAYERS, size=SIZE) for tag in (1, 2)]
        self.bytes = [len(model) for model in models]
        publish(self.repository, models, size=SIZE)
        self.active = 2
        self.order(2)
        self.agent = Command(
            *("run", "-f", str(self.file), "--json", "--state-dir", str(self.state)),
            *("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"),
            temporary=self.temporary,
        )
        self.endpoint = str(self.wait("serving", after=0)["grpc"])

    def order(self, rank: int) -> None:
        write_portfolio(
            self.file,
            repository=self.repository,
            model=MODEL,
            objectives=OBJECTIVES[rank],
            switching={
                "observeSeconds": "0.2",
                "downAfterSeconds": 0,
                "upAfterSeconds": 0,
                "minDwellSeconds": 0,
                "settleSeconds": 0,
                "probeIntervalSeconds": 1,
                "maxSwitchesPerHour": 3600,
                "quarantineSeconds": QUARANTINE_SECONDS,
            },
        )

    def wait(self, event: str, *, after: int, **facts: Any) -> dict[str, Any]:
        """The first such event of the agent after this many lines."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while time.monotonic() < deadline:
            if found := self.agent.events(event, after=after, **facts):
                return found[0]
            time.sleep(0.01)
        raise SystemExit(f"endurance: no {event} {facts}; the agent said: {self.agent.lines[after:]}")

    def server(self) -> TritonServer:
        found = recorded_server(self.state)
        assert found is not None
        return found

    def switch(self) -> float:
        """To the other variant; seconds from the changed objective until it serves."""
        said, began = len(self.agent.lines), time.monotonic()
        self.active = 3 - self.active
        self.order(self.active)
        self.wait("switch", after=said, variant=f"variant-{self.active}")
        return time.monotonic() - began

    def footprint(self) -> dict[str, int]:
        """Bytes held by the agent, by Triton with its backends, in shared memory and in temporary files."""
        server = self.server()
        deadline = time.monotonic() + 60
        while len(server.stubs()) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)  # the variant before is on its way out
        triton = psutil.Process(server.identity.pid)
        regions = Path("/dev/shm").glob(f"{server.shared_memory_prefix}*")
        # Triton's log grows by some lines a switch, as any log does: counted apart.
        temporary = [path for path in self.temporary.rglob("*") if path.is_file() and path.name != "triton.log"]
        agent = psutil.Process(self.agent.process.pid)
        return {
            "agentResident": agent.memory_info().rss,
            "agentDescriptors": agent.num_fds(),
            "agentThreads": agent.num_threads(),
            "tritonResident": triton.memory_info().rss,
            "backendResident": sum(child.memory_info().rss for child in triton.children(recursive=True)),
            "tritonDescriptors": triton.num_fds(),
            "tritonThreads": triton.num_threads(),
            "processes": 1 + len(triton.children(recursive=True)),
            "sharedMemory": sum(path.stat().st_blocks * 512 for path in regions),
            "temporary": sum(path.stat().st_size for path in temporary),
            "state": sum(path.stat().st_size for path in self.state.rglob("*") if path.is_file()),
            "log": (server.runtime / "triton.log").stat().st_size,
        }


def switches(site: Site, *, count: int, warm_up: int, think: float, until: float) -> dict[str, Any]:
    """Switch to and fro, and compare what is held at the beginning with what is held at the end."""
    for _ in range(warm_up):
        site.switch()  # allocators take their share first
    every = max(1, count // 60)
    samples, seconds = [site.footprint()], []
    with Client(site.endpoint, think=think) as client:
        for number in range(1, count + 1):
            if time.monotonic() > until:
                break
            seconds.append(site.switch())
            if number % every == 0:
                samples.append(site.footprint())
            if number % 50 == 0:
                say(f"{number} switches: {samples[-1]}")
    part = max(1, len(samples) // 5)
    growth = {}
    for name in samples[0]:
        first, last = (statistics.mean(sample[name] for sample in some) for some in (samples[:part], samples[-part:]))
        growth[name] = {
            "first": round(first),
            "last": round(last),
            "largest": max(sample[name] for sample in samples),
            "growthPercent": round(100 * (last / first - 1), 2) if first else None,
        }
    return {
        "switches": len(seconds),
        "warmUpSwitches": warm_up,
        "secondsPerSwitch": {"median": round(statistics.median(seconds), 3), "largest": round(max(seconds), 3)},
        "requests": client.summary(),
        "footprint": growth,
        "samples": samples,
    }


def kills(site: Site, *, count: int, seed: int, think: float, until: float) -> list[dict[str, Any]]:
    """Kill the backend process of the variant that is being loaded, ``count`` times, at moments drawn by ``seed``."""
    generator = random.Random(seed)
    said = len(site.agent.lines)
    for _ in range(6):
        site.switch()
    usual = statistics.median(event["loadMilliseconds"] for event in site.agent.events("switch", after=said)) / 1e3
    rows: list[dict[str, Any]] = []
    while len(rows) < count and time.monotonic() < until:
        server, said = site.server(), len(site.agent.lines)
        site.active = 3 - site.active
        target, version = f"variant-{site.active}", 100 + site.active
        old = {stub.pid for stub in server.stubs()}
        delay = generator.uniform(0.0, usual)
        with Client(site.endpoint, think=think) as client:
            site.order(site.active)
            deadline = time.monotonic() + LONGEST_SECONDS
            while (stub := stub_of_version(server.identity, version)) is None or stub.pid in old:
                if time.monotonic() > deadline:
                    raise SystemExit("endurance: no load begins")
                time.sleep(0.002)
            time.sleep(delay)
            was_loading = not site.agent.events("switch", after=said, variant=target)
            began = time.monotonic()
            stub.kill()
            if was_loading:
                # Over when the variant is served after all; where its load was done already, it is repaired.
                site.wait("switch", after=said, variant=target)
                while client.last_tag != site.active and time.monotonic() < deadline:
                    time.sleep(0.02)
            else:
                site.wait("switch", after=said, reason="ServerDead")
        events = [line["event"] for line in site.agent.lines[said:]]
        row = {
            "afterMilliseconds": round(1e3 * delay),
            "loading": was_loading,
            "hung": "stuck" in events,
            "failures": events.count("failed") + events.count("interrupted"),
            "serverStarted": site.server().identity != server.identity,
            "secondsUntilServed": round(time.monotonic() - began, 2),
            "requests": client.summary(),
            "agentSaid": [event for event in events if event != "decision"],
            "leftByOldServer": list(remains_of(server)) if site.server().identity != server.identity else [],
        }
        say(f"kill {len(rows) + 1}: {row}")
        rows.append(row)
    return rows


def faults(result: dict[str, Any]) -> list[str]:
    """What must not be."""
    found = []
    if "switching" in result:
        part = result["switching"]
        for name, entry in part["footprint"].items():
            most = max(entry["first"] * (1 + ALLOWED_GROWTH), entry["first"] + ALLOWED_COUNTS)
            if name != "log" and entry["last"] > most:
                found.append(f"{name} grew from {entry['first']} to {entry['last']}")
        if part["requests"]["failed"] or part["requests"]["wrong"]:
            found.append(f"requests during the switches: {part['requests']}")
    for row in result.get("kills", {}).get("rows", ()):
        if row["requests"]["wrong"] or row["leftByOldServer"]:
            found.append(f"a kill: {row}")
    if "kills" in result:
        asked, done = result["asked"]["kills"], len(result["kills"]["rows"])
        found += [f"only {done} of {asked} kills"] if done < asked else []
    if "switching" in result and result["switching"]["switches"] < result["asked"]["switches"]:
        found.append(f"only {result['switching']['switches']} of {result['asked']['switches']} switches")
    if result["left"]:
        found.append(f"left at the end: {result['left']}")
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "processor": model,
        "logicalCpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "triton": TRITON_VERSION,
        "packages": {name: version(name) for name in ("onnxruntime", "numpy", "tritonclient", "psutil")},
        "loadAverageBefore": os.getloadavg()[0],
        "niceness": os.nice(0),
    }


def main() -> int:
    """Run both parts and write the result; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=300)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--think-milliseconds", type=float, default=200.0)
    parser.add_argument("--minutes", type=float, default=600.0, help="the longest; two thirds are for the switches")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "endurance.json")
    options = parser.parse_args()
    think, began = options.think_milliseconds / 1e3, time.monotonic()
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.endurance", *sys.argv[1:]]),
        "commit": done.stdout.strip(),
        "machine": machine(),
        "asked": {"switches": options.switches, "kills": options.kills},
    }
    with tempfile.TemporaryDirectory(prefix="edgefolio-endurance-") as name:
        site = Site(Path(name))
        result["variantBytes"] = site.bytes
        try:
            if options.switches:
                result["switching"] = switches(
                    site,
                    count=options.switches,
                    warm_up=options.warm_up,
                    think=think,
                    until=began + 40 * options.minutes,
                )
            if options.kills:
                rows = kills(
                    site, count=options.kills, seed=options.seed, think=think, until=began + 60 * options.minutes
                )
                result["kills"] = {"seed": options.seed, "rows": rows}
        finally:
            last = recorded_server(site.state)
            result["exitCode"] = site.agent.stop()
        result["left"] = [] if last is None else list(remains_of(last))
        result["left"] += [str(path) for path in site.temporary.iterdir()]
    found = result["faults"] = faults(result)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    say(f"faults: {found or 'none'}; {options.output}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
