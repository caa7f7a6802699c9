"""A portfolio with a split of a small net, and `edgefolio serve` for each of its workers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from draft_manifests import draft_latency, draft_profile, draft_variant
from numpy.typing import NDArray
from served_splits import ServedSplit
from triton_agent import Command
from triton_portfolios import MODEL, SIZE, STEP, draft, images, revealing_model

from edgefolio.manifest import SPLIT_SCHEMA_VERSION, Manifest, Probe, Tensor
from edgefolio.records.split_member import SplitExchange, SplitLink, SplitMember, SplitShard
from edgefolio.repository import Publication
from edgefolio_edge.triton.client import ControlError, TritonControl
from edgefolio_split.executor import SplitExecutor

SPLIT = "split-two"
SPLIT_TAG = 9
ANY_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
#: Milliseconds: far above what a job of the small net takes on a busy machine.
PATIENT = 20_000.0


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def member_of(split: ServedSplit) -> SplitMember:
    plan = split.plan
    profile = draft_profile(draft_latency(mean=1.0, p95=1.2), memory=1 << 20)
    assert plan.certificate is not None
    return SplitMember(
        workers=plan.workers,
        shares_percent=plan.shares_percent,
        layout=plan.layout,
        wire=plan.wire,
        input_bytes=4 * 144,
        synchronisations=plan.synchronisations,
        exchanges=tuple(
            SplitExchange(
                place=exchange.place,
                depth=exchange.depth,
                bytes_into=tuple(plan.element_bytes * exchange.elements_into(rank) for rank in range(plan.workers)),
                dense_bytes_into=tuple(4 * exchange.elements_into(rank) for rank in range(plan.workers)),
            )
            for exchange in plan.exchanges
        ),
        dense_bytes=1 << 12,
        link=SplitLink(bits_per_second=1e9, round_trip_milliseconds=0.1),
        shards=tuple(
            SplitShard(rank=shard.rank, size_bytes=shard.size_bytes, parameters=0, macs=0, profiles=(profile,))
            for shard in plan.shards
        ),
        certificate=plan.certificate,
        own_milliseconds=2.0,
        predicted_milliseconds=1.5,
    )


def publish_split(
    directory: Path, split: ServedSplit, *, singles: list[bytes] | None = None, size: int = SIZE
) -> Manifest:
    """Variants of one node, by default of tags 1 and 2, and the split above them."""
    singles = singles or [revealing_model(tag, width=4 * tag) for tag in (1, 2)]
    drafted = draft(singles, size=size)
    values = images(2, seed=7, size=size)
    (outputs,) = SplitExecutor(split.plan, split.files.__getitem__).run(values).outputs
    probe = Probe(inputs=(_tensor("image", values),), outputs=(_tensor("logits", outputs),), absolute_tolerance=0.05)
    rank = len(singles) + 1
    variant = draft_variant(
        SPLIT,
        rank,
        split.raw,
        percent=95.0,
        file=f"{100 + rank}/plan.json",
        split=member_of(split),
        opset=17,
        probe=probe,
    )
    manifest = drafted.model_copy(
        update={"schema_version": SPLIT_SCHEMA_VERSION, "variants": (*drafted.variants, variant)}
    )
    scratch = directory.parent / f".{directory.name}-files"
    files = {SPLIT: scratch / "plan.json"}
    for name, raw in {**split.files, "plan.json": split.raw}.items():
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).write_bytes(raw)
    for single, raw in zip(drafted.variants, singles, strict=True):
        files[single.name] = scratch / f"{single.name}.onnx"
        files[single.name].write_bytes(raw)
    return Publication.open(str(directory)).publish(manifest, files, history_limit=5).manifest


def _tensor(name: str, values: NDArray[Any]) -> Tensor:
    return Tensor(name=name, shape=values.shape, values=tuple(float(value) for value in values.ravel()))


def write_set(path: Path, ports: list[int], **fields: Any) -> Path:
    """A set of workers on this machine, without TLS unless ``certificates`` are given."""
    certificates: list[Path] = fields.pop("certificates", [])
    workers = [
        {"rank": rank, "address": f"127.0.0.1:{port}"}
        | ({"certificate": str(certificates[rank])} if certificates else {})
        for rank, port in enumerate(ports)
    ]
    document = {
        "number": 1,
        "workers": workers,
        "plainLoopback": not certificates,
        "abandonMilliseconds": PATIENT,
        "predictedMilliseconds": PATIENT / 2,
        **fields,
    }
    temporary = path.with_suffix(".new")
    temporary.write_text(yaml.safe_dump(document))
    temporary.replace(path)
    return path


@dataclass
class ServedWorker:
    """One `edgefolio serve` of a worker."""

    command: Command
    event: dict[str, Any]

    @property
    def grpc(self) -> str:
        return str(self.event["grpc"])

    def infer(self, values: NDArray[np.float32], *, seconds: float = 60.0) -> NDArray[np.float32]:
        control = TritonControl(self.grpc)
        try:
            found: NDArray[np.float32] = control.infer(MODEL, {"image": values}, seconds=seconds).outputs["logits"]
            return found
        finally:
            control.close()

    def log(self) -> str:
        """What its Triton wrote."""
        (backends,) = (
            argument.partition("=")[2]
            for argument in self.triton().cmdline()
            if argument.startswith("--backend-directory=")
        )
        return (Path(backends).parent / "triton.log").read_text(errors="replace")

    def triton(self) -> psutil.Process:
        children = psutil.Process(self.command.process.pid).children()
        return next(child for child in children if child.name() == "tritonserver")

    def stub(self) -> psutil.Process:
        (found,) = (each for each in self.triton().children() if each.name().startswith("triton_python"))
        return found


def serve_worker(repository: Path, set_file: Path, rank: int, *options: str, temporary: Path | None = None) -> Command:
    arguments = ["--repository", str(repository), "--model", MODEL, "--variant", SPLIT, "--json", *ANY_PORTS]
    return Command(
        "serve", *arguments, "--worker-set", str(set_file), "--rank", str(rank), *options, temporary=temporary
    )


@contextlib.contextmanager
def served(repository: Path, set_file: Path, rank: int, *options: str) -> Iterator[ServedWorker]:
    with serve_worker(repository, set_file, rank, *options) as command:
        yield ServedWorker(command=command, event=command.wait_for("serving"))


def tag_of(outputs: NDArray[Any]) -> int:
    (tag,) = np.unique(np.round(outputs[:, 0] / STEP).astype(int))
    return int(tag)


@dataclass
class Load:
    """A closed loop of one client, each answer kept: the tag that it shows, or the error."""

    worker: ServedWorker
    expected: dict[int, NDArray[np.float32]]
    values: NDArray[np.float32]
    tags: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=90)

    def wait_for_tag(self, tag: int, *, seconds: float = 60.0) -> None:
        """Wait until the answers are those of ``tag``: the next five that begin now."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            count = len(self.tags)
            while len(self.tags) < count + 5 and time.monotonic() < deadline:
                time.sleep(0.01)
            if self.tags[count:] and set(self.tags[count:]) == {tag}:
                return
        raise AssertionError(f"no answers of {tag}: {self.tags[-20:]}, {self.errors[-3:]}")

    def _run(self) -> None:
        control = TritonControl(self.worker.grpc)
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                answer = control.infer(MODEL, {"image": self.values}, seconds=60).outputs["logits"]
            except ControlError as error:
                self.errors.append(str(error))
                time.sleep(0.05)
                continue
            self.seconds.append(time.monotonic() - began)
            tag = tag_of(answer)
            if tag not in self.expected or not np.allclose(answer, self.expected[tag], rtol=0, atol=0.01):
                self.wrong.append(f"{tag}: {answer}")
            self.tags.append(tag)
        control.close()
