"""Workers in one process, over loopback: their folders, sets and identities."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from served_splits import CLASSES, STEP, ServedSplit, served_split

from edgefolio_split.executor import SplitExecutor
from edgefolio_worker.records.member_file import WorkerMember
from edgefolio_worker.records.set_file import Peer, WorkerSet
from edgefolio_worker.records.status_file import write_in_one_step
from edgefolio_worker.serving.worker import Places, Worker

MODEL = "revealing"
VERSION, FALLBACK, OTHER_FALLBACK = 103, 101, 102
SIZE = 12
#: Far above what a busy machine needs for a job of microseconds.
PATIENT = 20_000.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def images(samples: int, *, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((samples, 1, SIZE, SIZE), dtype=np.float32)


def tag_of(outputs: NDArray[Any]) -> int:
    """Whose answer it is."""
    (tag,) = np.unique(np.round(outputs[:, 0] / STEP).astype(int))
    return int(tag)


def tagged_model(tag: int) -> bytes:
    bias = np.array([STEP * tag] + [0.0] * (CLASSES - 1), np.float32)
    matrix = np.full((SIZE * SIZE, CLASSES), 1e-3, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("Gemm", ["flat", "m", "b"], ["logits"])],
        "tagged",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(matrix, "m"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _encoded(name: str, values: NDArray[Any]) -> dict[str, Any]:
    data = b64encode(np.ascontiguousarray(values).tobytes()).decode()
    return {"name": name, "dtype": values.dtype.str, "shape": list(values.shape), "data": data}


def probe_document(outputs: NDArray[Any], values: NDArray[Any]) -> dict[str, Any]:
    return {
        "inputs": [_encoded("image", values)],
        "outputs": [_encoded("logits", outputs)],
        "absoluteTolerance": 0.05,
        "requestBatchSize": 1,
    }


def write_single(folder: Path, tag: int) -> None:
    """The folder of a version of one node."""
    folder.mkdir(parents=True)
    model = tagged_model(tag)
    (folder / "model.onnx").write_bytes(model)
    values = images(2, seed=7)
    (outputs,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"image": values})
    (folder / "probe.json").write_text(json.dumps(probe_document(outputs, values)))


def write_member(folder: Path, split: ServedSplit, rank: int, **changes: Any) -> None:
    """The folder of a split's version for one rank."""
    values = images(2, seed=7)
    (outputs,) = SplitExecutor(split.plan, split.files.__getitem__).run(values).outputs
    member = WorkerMember(
        model=MODEL,
        rank=rank,
        plan_sha256=split.plan.sha256,
        input_shape=(1, SIZE, SIZE),
        output_shapes=((CLASSES,),),
        predicted_milliseconds=PATIENT / 2,
        fallback=FALLBACK,
        probe=probe_document(outputs, values),
    )
    shard = {name: raw for name, raw in split.files.items() if name.startswith(f"shard-{rank}/")}
    files = {**shard, "plan.json": split.raw, "worker.json": replace(member, **changes).to_bytes()}
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)


@dataclass
class WorkingSet:
    """The folders of P workers of one split, and the workers that were started."""

    root: Path
    split: ServedSplit
    number: int = 7
    abandon: float = PATIENT
    identities: tuple[tuple[str, str], ...] = ()
    ports: list[int] = field(default_factory=list)
    workers: dict[int, Worker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = [free_port() for _ in range(self.split.plan.workers)]
        for rank in range(self.split.plan.workers):
            models = self.folder(rank) / MODEL
            write_member(models / str(VERSION), self.split, rank)
            write_single(models / str(FALLBACK), 1)
            write_single(models / str(OTHER_FALLBACK), 2)
            self.orders(rank).mkdir()

    def folder(self, rank: int) -> Path:
        return self.root / f"node-{rank}"

    def orders(self, rank: int) -> Path:
        return self.folder(rank) / "orders"

    def set_of(self, rank: int) -> WorkerSet:
        own = self.identities[rank] if self.identities else ("", "")
        peers = tuple(
            Peer(
                rank=peer,
                address=f"127.0.0.1:{self.ports[peer]}",
                certificate=Path(self.identities[peer][0]).read_text() if self.identities else "",
            )
            for peer in range(self.split.plan.workers)
            if peer != rank
        )
        return WorkerSet(
            model=MODEL,
            plan_sha256=self.split.plan.sha256,
            number=self.number,
            rank=rank,
            listen=f"127.0.0.1:{self.ports[rank]}",
            peers=peers,
            certificate=own[0],
            key=own[1],
            fallback=FALLBACK,
            abandon_milliseconds=self.abandon,
            predicted_milliseconds=PATIENT / 2,
        )

    def order(self, rank: int, **changes: Any) -> None:
        write_in_one_step(self.orders(rank) / "set.json", replace(self.set_of(rank), **changes).to_bytes())

    def start(self, rank: int, *, max_samples: int = 16) -> Worker:
        places = Places(model_folder=self.folder(rank) / MODEL, version=VERSION, orders=self.orders(rank))
        worker = Worker(places, input_name="image", output_names=("logits",), max_samples=max_samples, threads=1)
        worker.start()
        self.workers[rank] = worker
        return worker

    def start_all(self) -> list[Worker]:
        for rank in range(self.split.plan.workers):
            self.order(rank)
            self.start(rank)
        self.wait_linked()
        return [self.workers[rank] for rank in sorted(self.workers)]

    def wait_linked(self, *ranks: int) -> None:
        chosen = [self.workers[rank] for rank in (ranks or sorted(self.workers))]
        wait_for(lambda: all(worker.status().is_linked for worker in chosen), self.told)

    def told(self) -> str:
        return "; ".join(f"{rank}: {worker.status()}" for rank, worker in self.workers.items())

    def expected(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the reference executor answers."""
        return self.reference.run(values).outputs[0]

    @cached_property
    def reference(self) -> SplitExecutor:
        return SplitExecutor(self.split.plan, self.split.files.__getitem__)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


@contextlib.contextmanager
def working_set(root: Path, split: ServedSplit | None = None, **fields: Any) -> Iterator[WorkingSet]:
    found = WorkingSet(root=root, split=split or served_split(), **fields)
    try:
        yield found
    finally:
        found.close()


def wait_for(holds: Callable[[], bool], told: Callable[[], object] = lambda: "", *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.01)


def answer(worker: Worker, values: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = worker.answer(values, ["logits"])["logits"]
    return found
