"""The worker: it answers requests by its peers and itself together, and by the fallback whenever that is not possible.

``answer`` never waits longer than the abandon time for anybody, and an answer comes from the split whole or from the
fallback whole. A thread of its own follows the set file, sends probe jobs and says how the worker is.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio_worker.computing.fallback import Fallback, FallbackError
from edgefolio_worker.computing.probe_file import Arrays, ProbeError, decoded, difference
from edgefolio_worker.computing.shard import Shard, ShardError
from edgefolio_worker.network.hub import Hub
from edgefolio_worker.protocol.handshake import PROTOCOL, Hello
from edgefolio_worker.protocol.patience import probe_milliseconds
from edgefolio_worker.protocol.plan import PlanError, WorkerPlan
from edgefolio_worker.records import member_file, set_file
from edgefolio_worker.records.followed_set import FollowedSet
from edgefolio_worker.records.member_file import MemberError, WorkerMember
from edgefolio_worker.records.set_file import SetError, WorkerSet
from edgefolio_worker.records.status_file import WorkerStatus, status_name, write_in_one_step
from edgefolio_worker.serving.engine import Engine, UnansweredError

__all__ = ["Places", "Worker", "WorkerError"]

logger = logging.getLogger(__name__)

STEP_SECONDS = 0.05
STATUS_SECONDS = 1.0
#: Samples of a frame: what its header holds, and what a payload may be at most.
_MOST_SAMPLES = 2**16 - 1
_MOST_PAYLOAD_BYTES = 2**31 - 1


class WorkerError(RuntimeError):
    """The version cannot be served: its files are not right, or there is nothing to fall back to."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a worker's files lie. ``orders`` holds the set file and the status; ``None``: it never joins a set."""

    model_folder: Path
    version: int
    orders: Path | None

    @property
    def version_folder(self) -> Path:
        """The plan, the shard and what they belong to."""
        return self.model_folder / str(self.version)


class Worker:
    """One worker, from its files on. It works alone at once, and with its peers as soon as they are linked."""

    def __init__(
        self, places: Places, *, input_name: str, output_names: Sequence[str], max_samples: int, threads: int
    ) -> None:
        """Open shard and fallback and compare their probes; waits for no peer. Raises :class:`WorkerError`.

        Names are those of the model for clients, in the order of the plan.
        """
        self._places, self._input, self._outputs, self._threads = places, input_name, tuple(output_names), threads
        try:
            raw = (places.version_folder / "plan.json").read_bytes()
            member = WorkerMember.from_bytes((places.version_folder / member_file.NAME).read_bytes())
            plan = WorkerPlan.read(
                raw, rank=member.rank, input_shape=member.input_shape, output_shapes=member.output_shapes
            )
            if plan.sha256 != member.plan_sha256:
                raise WorkerError(f"the plan's digest is {plan.sha256}, not {member.plan_sha256}")
            if len(plan.outputs) != len(self._outputs):
                raise WorkerError(f"the plan has {len(plan.outputs)} outputs, the model {len(self._outputs)}")
            shard = Shard(plan, places.version_folder, threads=threads)
            self._probe = _first_samples(member.probe)
            self._followed = FollowedSet(
                (places.orders or Path("/nonexistent")) / set_file.NAME,
                model=member.model,
                plan_sha256=plan.sha256,
                rank=plan.rank,
                workers=plan.workers,
            )
            self._followed.look()
            self._fallback = self._first_fallback(member)
        except (OSError, MemberError, PlanError, ShardError, ProbeError, FallbackError) as error:
            raise WorkerError(str(error)) from error
        self._member, self._plan = member, plan
        self._engine = Engine(shard, max_samples=_most_samples(plan, max_samples))
        self._hub: Hub | None = None
        self._set: WorkerSet | None = None
        self._problem: str | None = None
        self._abandon_seconds = 0.1
        self._probe_seconds = probe_milliseconds(member.predicted_milliseconds) / 1e3
        self._said: str | None = ""
        self._status_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker-care", daemon=True)

    def start(self) -> None:
        """Start its threads."""
        self._engine.start()
        self._adopt()
        self._thread.start()

    def close(self) -> None:
        """Say BYE to the peers, whose requests go to their fallbacks at once, and end the threads."""
        self._stopping.set()
        self._thread.join(timeout=5)
        self._unlink("closing")
        self._engine.stop()
        if self._places.orders is not None:
            with contextlib.suppress(OSError):
                (self._places.orders / status_name(self._places.version)).unlink()

    def answer(self, values: npt.NDArray[np.float32], outputs: Sequence[str]) -> Arrays:
        """The named outputs for a batch. Raises whatever ONNX Runtime does where the fallback cannot compute it."""
        reason = self._engine.why_not(values.shape)
        if reason is None:
            try:
                # Copied: a job that is given up may be sent or computed after its request is gone.
                found = self._engine.ask(np.array(values, dtype=np.float32), seconds=self._abandon_seconds)
            except UnansweredError as error:
                reason = error.reason
            self._engine.report(reason)
            if reason is None:
                return {name: each for name, each in zip(self._outputs, found, strict=True) if name in outputs}
        answers = self._fallback.run(outputs, {self._input: values})
        self._engine.fell_back(reason)
        return answers

    def status(self) -> WorkerStatus:
        """How it is now."""
        hub, engine = self._hub, self._engine
        tally, reason = engine.counted()
        return WorkerStatus(
            version=self._places.version,
            set_number=None if self._set is None else self._set.number,
            rank=self._plan.rank,
            plan_sha256=self._plan.sha256,
            reason=reason,
            problem=self._problem or (None if hub is None else hub.problem),
            fallback=self._fallback.version,
            answers=dict(tally.answers),
            jobs=tally.jobs,
            exchange_seconds=tally.exchange_seconds,
            computed=tally.computed,
            compute_seconds=tally.compute_seconds,
            oldest_task_milliseconds=float(engine.task_milliseconds()),
            ended={} if hub is None else hub.ended(),
            peers=() if hub is None else hub.status(),
            time=time(),
        )

    def _run(self) -> None:
        while not self._stopping.wait(STEP_SECONDS):
            try:
                self._step()
            except Exception:
                # Without this thread the worker would never join a set again.
                logger.exception("A step of the worker failed.")
                self._stopping.wait(STATUS_SECONDS)

    def _step(self) -> None:
        if self._followed.look() or (self._hub is None and self._followed.found is not None and self._is_due()):
            self._adopt()
        if self._engine.may_probe():
            self._send_probe()
        reason = self._engine.counted()[1]
        if reason != self._said:
            logger.warning("%s", "The peers answer now." if reason is None else f"The fallback answers: {reason}.")
        if reason != self._said or self._is_due():
            self._said = reason
            self._write_status()

    def _is_due(self) -> bool:
        return monotonic() - self._status_at >= STATUS_SECONDS

    def _adopt(self) -> None:
        """Follow what the set file says now."""
        found, before = self._followed.found, self._set
        if found is None:
            self._problem = self._followed.problem
            self._unlink(self._followed.reason)
            return
        self._use_fallback(found.fallback)
        self._abandon_seconds = found.abandon_milliseconds / 1e3
        self._engine.patience = found.abandon_milliseconds
        self._probe_seconds = probe_milliseconds(found.predicted_milliseconds) / 1e3
        if self._hub is not None and before is not None and before.has_same_links(found):
            self._set = found
            return
        self._unlink("forming")
        hello = Hello(
            protocol=PROTOCOL,
            model=found.model,
            plan_sha256=self._plan.sha256,
            number=found.number,
            rank=self._plan.rank,
            workers=self._plan.workers,
            wire=self._plan.wire,
            max_samples=self._engine.max_samples,
        )
        try:
            hub = Hub(plan=self._plan, worker_set=found, hello=hello, events=self._engine)
        except SetError as error:
            self._problem = str(error)
            self._engine.attach(None, reason="set-identity")
            return
        self._problem = None
        self._set, self._hub = found, hub
        self._engine.attach(hub, reason="forming")
        hub.start()

    def _unlink(self, reason: str) -> None:
        """Belong to no set. Requests go to the fallback before the peers hear of it."""
        hub, self._hub, self._set = self._hub, None, None
        self._engine.attach(None, reason=reason)
        if hub is not None:
            hub.stop()

    def _first_fallback(self, member: WorkerMember) -> Fallback:
        found = self._followed.found
        wanted = member.fallback if found is None else found.fallback
        try:
            return Fallback(self._places.model_folder, wanted, threads=self._threads)
        except FallbackError as error:
            if wanted == member.fallback:
                raise
            logger.warning("%s; version %d answers instead.", error, member.fallback)
            return Fallback(self._places.model_folder, member.fallback, threads=self._threads)

    def _use_fallback(self, version: int) -> None:
        if version == self._fallback.version:
            return
        try:
            self._fallback = Fallback(self._places.model_folder, version, threads=self._threads)
        except FallbackError as error:
            logger.warning("%s; version %d stays.", error, self._fallback.version)

    def _send_probe(self) -> None:
        values, expected = self._probe
        try:
            found = self._engine.ask(values, seconds=self._probe_seconds)
        except UnansweredError:
            self._engine.probed(is_good=False)
            return
        wrong = difference(_named(expected), _named(found), absolute=float(self._member.probe["absoluteTolerance"]))
        if wrong is not None:
            logger.error("The peers answer the probe wrongly: %s", wrong)
        self._engine.probed(is_good=wrong is None)

    def _write_status(self) -> None:
        self._status_at = monotonic()
        if self._places.orders is not None:
            with contextlib.suppress(OSError):
                write_in_one_step(self._places.orders / status_name(self._places.version), self.status().to_bytes())


def _named(outputs: Sequence[Any]) -> Arrays:
    return {f"output {number}": each for number, each in enumerate(outputs)}


def _first_samples(probe: dict[str, Any]) -> tuple[npt.NDArray[np.float32], tuple[Any, ...]]:
    """One sample of the probe, and the outputs that belong to it."""
    try:
        (values,) = decoded(probe["inputs"]).values()
        expected = decoded(probe["outputs"])
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeError(f"the split's probe cannot be read ({type(error).__name__}: {str(error)[:200]})") from error
    return values[:1].astype(np.float32), tuple(each[:1] for each in expected.values())


def _most_samples(plan: WorkerPlan, wanted: int) -> int:
    largest = max(
        plan.input_bytes(1),
        *(plan.result_bytes(rank, 1) for rank in range(plan.workers)),
        *(plan.transfer_bytes(transfer, 1) for transfer in plan.transfers),
    )
    return max(1, min(wanted, _MOST_SAMPLES, _MOST_PAYLOAD_BYTES // largest))
