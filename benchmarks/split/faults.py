"""Faults of a split's peer under load: what clients of the surviving worker see of each.

    python -m benchmarks.split.faults          # root, Linux; a machine that nothing else uses; about 40 minutes

Two workers started by `edgefolio serve` in two network namespaces, one core each, certificates on, 1 Gbit/s. One
closed-loop client of worker 0, on that worker's core. Each fault is made to worker 1 three times, kept, and healed.
The net is a small one of the tests: the figures are about faults, not about how fast a split is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from benchmarks.split.results import RESULTS, headline, write
from demo.split.nodes import ADDRESSES, PORT, inside, serve, set_link, shape, two_nodes
from demo.split.process import Process
from demo.split.requests import FAILED, WRONG, Request, client_command, requests_in, wait_for_answer

ROOT = Path(__file__).resolve().parents[2]
sys.path.extend(str(ROOT / "tests" / folder) for folder in ("shared", "triton"))

from served_splits import served_split  # noqa: E402
from split_portfolios import SPLIT, SPLIT_TAG, publish_split  # noqa: E402
from triton_portfolios import MODEL, images, revealing_model  # noqa: E402

from edgefolio_edge.peers.identity import make_identity  # noqa: E402
from edgefolio_split.executor import SplitExecutor  # noqa: E402

RATE, SLOWED = "1gbit", "100kbit"
REPEATS = 3
#: Seconds of load before a fault, with it, and at most until the split answers again.
BEFORE, DURING, HEALING = 10.0, 10.0, 60.0
#: Answers of one variant differ by less: only rounding does.
TOLERANCE = 0.01
#: A fault counts as noticed once so many answers in a row come without waiting.
IN_A_ROW = 5


@dataclass
class Nodes:
    """Both workers and the client of the first."""

    folder: Path
    cores: list[int]
    second: Process

    def start_second(self, set_file: str = "set.yaml", *, repository: str = "repository") -> None:
        self.second = self.served(1, set_file, repository=repository)
        self.second.__enter__()
        # What counts as healed is a server that serves.
        self.second.wait_for("serving")

    def served(self, node: int, set_file: str, *, repository: str = "repository") -> Process:
        return serve(
            node,
            repository=self.folder / repository,
            set_file=self.folder / set_file,
            identity=self.folder / f"identity-{node}",
            variant=SPLIT,
            cores=self.cores,
            model=MODEL,
        )

    def stop_second(self) -> None:
        self.second.__exit__(None, None, None)


@contextlib.contextmanager
def killed_server(nodes: Nodes) -> Iterator[None]:
    nodes.second.named("tritonserver").kill()
    yield
    nodes.stop_second()
    nodes.start_second()


@contextlib.contextmanager
def killed_stub(nodes: Nodes) -> Iterator[None]:
    nodes.second.named("triton_python").kill()
    yield  # its agent repairs it


@contextlib.contextmanager
def frozen(nodes: Nodes) -> Iterator[None]:
    nodes.second.send(signal.SIGSTOP, everywhere=True)
    yield
    # What Triton does to itself after so long is not the question: it is started anew.
    nodes.second.send(signal.SIGKILL, everywhere=True)
    nodes.stop_second()
    nodes.start_second()


@contextlib.contextmanager
def cut_off(_nodes: Nodes) -> Iterator[None]:
    set_link(1, "down")
    yield
    set_link(1, "up")


@contextlib.contextmanager
def slowed(_nodes: Nodes) -> Iterator[None]:
    for node in range(2):
        shape(node, SLOWED)
    yield
    for node in range(2):
        shape(node, RATE)


@contextlib.contextmanager
def starved(nodes: Nodes) -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    burning = [Process(1, command, nodes.cores, prefix=inside(1)).__enter__() for _ in range(20)]
    yield
    for process in burning:
        process.send(signal.SIGKILL, everywhere=True)
        process.process.wait()


@contextlib.contextmanager
def another_plan(nodes: Nodes) -> Iterator[None]:
    nodes.stop_second()
    nodes.start_second(repository="another")
    yield
    nodes.stop_second()
    nodes.start_second()


FAULTS: dict[str, Callable[[Nodes], contextlib.AbstractContextManager[None]]] = {
    "server killed": killed_server,
    "backend process killed": killed_stub,
    "frozen whole": frozen,
    "wire down": cut_off,
    f"wire at {SLOWED}": slowed,
    "core shared with 20 others": starved,
    "started anew with another plan": another_plan,
}


def summary(requests: list[Request], *, fault: float, healed: float, again: float | None, abandon: float) -> Any:
    """What one fault did. Times in milliseconds, those of answers by the fault's own time."""
    after = [each for each in requests if each.answered > fault]
    waited = [each for each in after if each.answered - each.sent > abandon]
    opened = None
    for first in range(len(after) - IN_A_ROW):
        row = after[first : first + IN_A_ROW]
        if all(each.by == "1" and each.answered - each.sent < abandon for each in row):
            opened = 1e3 * (row[0].sent - fault)
            break
    times = [1e3 * (each.answered - each.sent) for each in requests]
    return {
        "requests": len(requests),
        "failed": sum(each.by == FAILED for each in requests),
        "nobodys": sum(each.by == WRONG for each in requests),
        "bySplit": sum(each.by == str(SPLIT_TAG) for each in requests),
        "byFallback": sum(each.by == "1" for each in requests),
        "laterThanAbandonTime": len(waited),
        "longestMilliseconds": round(max(times), 2),
        "medianMilliseconds": round(statistics.median(times), 3),
        "firstFallbackWithoutWaitingMilliseconds": None if opened is None else round(opened, 1),
        "splitAgainSeconds": None if again is None else round(again - healed, 2),
    }


def prepare(folder: Path, *, abandon: float) -> None:
    """Two repositories with a split each, identities, the set, and the right answers."""
    split = served_split(tag=SPLIT_TAG)
    publish_split(folder / "repository", split)
    publish_split(folder / "another", served_split(tag=8))
    for node in range(2):
        make_identity(folder / f"identity-{node}")
    document = {
        "number": 1,
        "workers": [
            {
                "rank": node,
                "address": f"{ADDRESSES[node]}:{PORT}",
                "certificate": f"identity-{node}/certificate.pem",
            }
            for node in range(2)
        ],
        "abandonMilliseconds": abandon,
    }
    # JSON is YAML.
    (folder / "set.yaml").write_text(json.dumps(document))
    values = images(1, seed=5)
    found = {str(SPLIT_TAG): SplitExecutor(split.plan, split.files.__getitem__).run(values).outputs[0]}
    for tag in (1, 2):
        session = onnxruntime.InferenceSession(revealing_model(tag, width=4 * tag), providers=["CPUExecutionProvider"])
        (found[str(tag)],) = session.run(None, {"image": values})
    np.savez(folder / "answers.npz", input=values[None], **{name: answer[None] for name, answer in found.items()})


def measure(folder: Path, faults: list[str], *, repeats: int, abandon: float) -> dict[str, list[Any]]:
    """Make every fault, in turns."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    results: dict[str, list[Any]] = {name: [] for name in faults}
    nodes = Nodes(folder, cores, Process(1, [], cores))
    lines = folder / "lines.txt"
    for node in range(2):
        shape(node, RATE)
    with nodes.served(0, "set.yaml") as first:
        nodes.start_second()
        try:
            grpc = first.wait_for("serving")["grpc"]
            client = client_command(
                grpc, lines, folder / "answers.npz", model=MODEL, tensors=("image", "logits"), tolerance=TOLERANCE
            )
            for number, name in ((number, name) for number in range(repeats) for name in faults):
                lines.unlink(missing_ok=True)
                with Process(0, client, cores, prefix=inside(0)):
                    if wait_for_answer(lines, str(SPLIT_TAG), since=0, seconds=HEALING) is None:
                        raise TimeoutError("the split does not answer before the fault")
                    time.sleep(BEFORE)
                    fault = time.monotonic()
                    with FAULTS[name](nodes):
                        time.sleep(DURING)
                    healed = time.monotonic()
                    again = wait_for_answer(lines, str(SPLIT_TAG), since=healed, seconds=HEALING)
                    time.sleep(2)
                found = summary(requests_in(lines), fault=fault, healed=healed, again=again, abandon=abandon / 1e3)
                results[name].append(found)
                print(number + 1, name, json.dumps(found), flush=True)
        finally:
            nodes.stop_second()
    return results


def markdown(document: dict[str, Any]) -> str:
    """The table of the JSON."""
    text = (
        f"Abandon time {document['abandonMilliseconds']:.0f} ms. Of each fault all repeats together; "
        "times are the largest of them."
    )
    rows = [
        *headline("Faults of a split's peer", document, text),
        "",
        "| fault | requests | failed | nobody's | later than the abandon time | longest ms | at once after ms | "
        "split again after s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in document["faults"].items():
        opened = [run["firstFallbackWithoutWaitingMilliseconds"] for run in runs]
        again = [run["splitAgainSeconds"] for run in runs]
        cells = [
            sum(run["requests"] for run in runs),
            sum(run["failed"] for run in runs),
            sum(run["nobodys"] for run in runs),
            sum(run["laterThanAbandonTime"] for run in runs),
            max(run["longestMilliseconds"] for run in runs),
            "-" if None in opened else max(opened),
            "never" if None in again else max(again),
        ]
        rows.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Measure, and write the JSON and its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--abandon-milliseconds", type=float, default=100.0)
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="These alone.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgefolio-faults-") as name, two_nodes():
        folder = Path(name)
        prepare(folder, abandon=options.abandon_milliseconds)
        found = measure(
            folder,
            options.fault or list(FAULTS),
            repeats=options.repeats,
            abandon=options.abandon_milliseconds,
        )
    content = {
        "loadAverageAtTheEnd": round(os.getloadavg()[0], 1),
        "abandonMilliseconds": options.abandon_milliseconds,
        "rate": RATE,
        "faults": found,
    }
    command = " ".join(["python -m benchmarks.split.faults", *sys.argv[1:]])
    write(options.output, "split-faults", command=command, content=content, markdown=markdown)


if __name__ == "__main__":
    main()
