"""Variant switch on a server, accepted only after a canary inference.

Variants are versions of one Triton model, so clients never change. The way of a switch: bytes verified on disk ->
explicit load that names exactly the wanted versions -> our backend compares the probe while it loads, before the
version becomes ready -> canary by version, and once as clients ask -> done. Otherwise back to the previous variant at
once. A server that says 200 or "ready" proves nothing: it says so with a dead backend, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefolio.errors import IntegrityError
from edgefolio.manifest import Manifest, Probe, Variant
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.probe import mismatch, probe_inputs
from edgefolio_edge.models.triton_configuration import configuration_of
from edgefolio_edge.triton.client import LOAD_SECONDS, Answer, ControlError, TritonControl
from edgefolio_edge.triton.placement import Placement, SwitchResult
from edgefolio_edge.triton.room import is_shortage
from edgefolio_edge.triton.split_canary import after_first_answer
from edgefolio_worker.records.status_file import WorkerStatus

#: The longest a canary may take; a healthy variant answers in milliseconds, a dead stub fails after one second.
CANARY_SECONDS = 10.0
UNLOAD_SECONDS = 15.0
#: Load timeout, as a multiple of the profiled load time, but never less than ...
LOAD_PATIENCE = 50.0
#: ... this many seconds.
LEAST_LOAD_SECONDS = 15.0
#: Part of the load timeout that the process of a late load may have had of a processor: more, and it is not just slow.
LATE_LOAD_SHARE = 1 / 3
#: Seconds for a server to give up a load whose backend process is gone.
GIVE_UP_SECONDS = 5.0


def load_seconds(variant: Variant) -> float:
    """Timeout of a load of ``variant``: a multiple of its profiled load time."""
    profiled = max(profile.load_milliseconds for profile in variant.profiles) / 1e3
    return min(LOAD_SECONDS, max(LEAST_LOAD_SECONDS, LOAD_PATIENCE * profiled))


class Switcher:
    """Switches the variants of one model on one server. There must be no second one (``directory_lock``)."""

    def __init__(
        self,
        control: TritonControl,
        store: ModelStore,
        *,
        warm_up: bool = False,
        end_load: Callable[[int], bool] = lambda _version: False,
        lack_of_room: Callable[[Manifest], str | None] = lambda _manifest: None,
        is_loading: Callable[[int, float], bool] = lambda _version, _seconds: False,
        worker_status: Callable[[int], WorkerStatus | None] = lambda _version: None,
    ) -> None:
        """``warm_up`` for a server whose backend compares no probe while loading. ``end_load`` ends the hung load of a
        version, and returns whether it could. ``lack_of_room`` says why another version cannot be loaded now.
        ``is_loading`` says whether the load of a version goes on, and has not had so many seconds of a processor.
        ``worker_status`` is what the worker of a split's version says of itself."""
        self.control = control
        self.store = store
        self.warm_up = warm_up
        self._end_load = end_load
        self._lack_of_room = lack_of_room
        self._is_loading = is_loading
        self._worker_status = worker_status
        #: Who answered the last canary of a split: ``split`` or ``fallback``.
        self.answered_by: str | None = None

    def switch(
        self,
        target: Placement,
        *,
        previous: Placement | None = None,
        standby: Sequence[Placement] = (),
        is_resident: bool = False,
    ) -> SwitchResult:
        """Make ``target`` serve; on any failure make ``previous`` serve again.

        ``standby`` variants stay loaded beside it. They must have a lower version: unversioned requests go to the
        highest. A target that ``is_resident`` below ``previous`` is asked for its probe first; then leaving the other
        is an unload, which takes milliseconds.
        """
        _require_lower(standby, than=target)
        started = time.perf_counter()
        loaded = 0.0
        cause: str | None = None
        unreachable = stuck = damaged = False
        try:
            if is_resident and (cause := self.canary(target, versions=(target.version,))) is not None:
                # Nothing was touched: the previous variant serves on.
                return SwitchResult(
                    variant=target.variant.name,
                    version=target.version,
                    cause=cause,
                    load_milliseconds=0.0,
                    total_milliseconds=1e3 * (time.perf_counter() - started),
                    restored=None if previous is None else True,
                )
            if not is_resident:
                self.store.require(target.manifest, target.variant)
            lack = None if previous is None or is_resident else self._lack_of_room(target.manifest)
            if lack is not None:
                # Nothing was touched: the previous variant serves on.
                return SwitchResult(
                    variant=target.variant.name,
                    version=target.version,
                    cause=lack,
                    load_milliseconds=0.0,
                    total_milliseconds=1e3 * (time.perf_counter() - started),
                    restored=True,
                    shortage=True,
                )
            loaded = self._load([*standby, target])
            cause = self.canary(target)
        except IntegrityError as error:
            cause, damaged = str(error), True
        except ControlError as error:
            cause, unreachable, stuck = str(error), error.unreachable, error.timed_out
        shortage = cause is not None and is_shortage(cause)
        if stuck and self._end_load(target.version):
            cause = f"the load did not end within {load_seconds(target.variant):.0f} s and was ended"
            stuck = not self._takes_loads(previous)
        if cause is not None and not stuck:
            unreachable = unreachable or self._is_gone()
        restored = None
        if cause is not None and previous is not None and not unreachable:
            # A load behind a hung one waits for ever; the previous version still serves.
            restored = self.canary(previous) is None if stuck else self._restore(previous, standby=standby)
            if shortage and not restored:
                # The new version takes the room that the previous one needs.
                restored = self.repair(previous).succeeded
        return SwitchResult(
            variant=target.variant.name,
            version=target.version,
            cause=cause,
            load_milliseconds=loaded,
            total_milliseconds=1e3 * (time.perf_counter() - started),
            restored=restored,
            unreachable=unreachable,
            stuck=stuck,
            damaged=damaged,
            shortage=shortage,
        )

    def load_standby(self, standby: Placement, *, active: Placement) -> SwitchResult:
        """Load ``standby`` beside ``active`` and ask it for its probe; if it fails, ``active`` alone stays loaded."""
        _require_lower([standby], than=active)
        started = time.perf_counter()
        loaded = 0.0
        cause: str | None = None
        unreachable = stuck = damaged = shortage = False
        try:
            self.store.require(standby.manifest, standby.variant)
            cause = self._lack_of_room(standby.manifest)
            shortage = cause is not None
            if cause is None:
                loaded = self._load([standby, active], missing=standby)
                cause = self.canary(standby, versions=(standby.version,))
        except IntegrityError as error:
            cause, damaged = str(error), True
        except ControlError as error:
            cause, unreachable, stuck = str(error), error.unreachable, error.timed_out
        if stuck and self._end_load(standby.version):
            cause = f"the load did not end within {load_seconds(standby.variant):.0f} s and was ended"
            stuck = not self._takes_loads(active)
        restored = None
        if cause is not None and not shortage and not stuck:
            unreachable = unreachable or self._is_gone()
            restored = None if unreachable else self._restore(active)
        return SwitchResult(
            variant=standby.variant.name,
            version=standby.version,
            cause=cause,
            load_milliseconds=loaded,
            total_milliseconds=1e3 * (time.perf_counter() - started),
            restored=restored,
            unreachable=unreachable,
            stuck=stuck,
            damaged=damaged,
            shortage=shortage or (cause is not None and is_shortage(cause)),
        )

    def release_standby(self, active: Placement) -> bool:
        """Unload everything but ``active``. Returns whether the server did; it serves on either way."""
        try:
            self._load([active], seconds=UNLOAD_SECONDS)
        except ControlError:
            return False
        return True

    def canary(self, placement: Placement, *, versions: Sequence[int | None] | None = None) -> str | None:
        """Send the probe by version, and unversioned as clients do. ``None`` if the answers are right, else why not.

        ``versions`` asks those instead; a standby is never asked unversioned. Of a split the fallback's answers are
        right as well while its worker says that it is not linked.
        """
        for version in (placement.version, None) if versions is None else versions:
            wrong = self._wrong(placement, placement.variant.probe, version=version)
            if placement.variant.split is not None:
                wrong, self.answered_by = after_first_answer(
                    placement,
                    wrong,
                    ask=partial(self._wrong, placement, version=version),
                    status=partial(self._worker_status, placement.version),
                )
            if wrong is not None:
                return f"canary: {wrong}"
        return None

    def _wrong(self, placement: Placement, probe: Probe, *, version: int | None) -> str | None:
        """What is wrong with the answer to ``probe``; ``None`` if nothing is."""
        try:
            answer = self._answer(placement.manifest, probe_inputs(placement.manifest, probe), version=version)
        except ControlError as error:
            return str(error)
        if answer.version != placement.version:
            return f"version {answer.version} answered instead of {placement.version}"
        return mismatch(probe, answer.outputs)

    def _answer(self, manifest: Manifest, inputs: Mapping[str, NDArray[Any]], *, version: int | None) -> Answer:
        """The answer to ``inputs``, in requests of at most the largest batch that is served."""
        samples, largest = len(next(iter(inputs.values()))), self.store.largest_batch(manifest)
        answers = [
            self.control.infer(
                self.store.model,
                {name: values[first : first + largest] for name, values in inputs.items()},
                version=version,
                seconds=CANARY_SECONDS,
            )
            for first in range(0, samples, largest)
        ]
        if len(answers) == 1:
            return answers[0]
        names = answers[0].outputs
        outputs = {name: np.concatenate([answer.outputs[name] for answer in answers]) for name in names}
        return replace(answers[-1], outputs=outputs)

    def repair(self, placement: Placement) -> SwitchResult:
        """Repair ``placement`` after its backend died: unload, load, canary.

        Loading it again would do nothing (the server believes it is ready), and loading another version would leave the
        dead one unloading for good. Requests fail already, so the pause costs nothing.
        """
        started = time.perf_counter()
        loaded = 0.0
        unreachable = damaged = False
        try:
            self.control.unload(self.store.model)
            self._wait_until_unloaded()
            self.store.require(placement.manifest, placement.variant)
            loaded = self._load([placement])
            cause = self.canary(placement)
        except IntegrityError as error:
            cause, damaged = str(error), True
        except ControlError as error:
            cause, unreachable = str(error), error.unreachable
        return SwitchResult(
            variant=placement.variant.name,
            version=placement.version,
            cause=cause,
            load_milliseconds=loaded,
            total_milliseconds=1e3 * (time.perf_counter() - started),
            unreachable=unreachable or (cause is not None and self._is_gone()),
            damaged=damaged,
            shortage=cause is not None and is_shortage(cause),
        )

    def _load(
        self, placements: Sequence[Placement], *, seconds: float | None = None, missing: Placement | None = None
    ) -> float:
        """Have exactly ``placements`` loaded; ``missing`` is the one that is to be loaded, the last one by default."""
        target = missing or placements[-1]
        configuration = configuration_of(
            target.manifest,
            model_name=self.store.model,
            threads=self.store.threads,
            versions=[placement.version for placement in placements],
            warm_up=self.warm_up,
            largest_batch=self.store.largest_batch(target.manifest),
            is_split=target.variant.split is not None,
        )
        started = time.perf_counter()
        try:
            self.control.load(self.store.model, configuration, seconds=seconds or load_seconds(target.variant))
        except ControlError as error:
            if seconds is not None or not error.timed_out or not self._ends_late(placements, target):
                raise
        return 1e3 * (time.perf_counter() - started)

    def _ends_late(self, placements: Sequence[Placement], target: Placement) -> bool:
        """Whether a load ends well after its time: where others keep the processors busy, it is slow and does not hang.

        Seen at a load of 30 on two processors: 15 s were too short, and Triton was restarted for nothing.
        """
        wanted = tuple(sorted(placement.version for placement in placements))
        deadline = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < deadline:
            if self.control.ready_versions(self.store.model) == wanted:
                return True
            if not self._is_loading(target.version, LATE_LOAD_SHARE * load_seconds(target.variant)):
                # It may have ended in between.
                return self.control.ready_versions(self.store.model) == wanted
        return False

    def _restore(self, previous: Placement, *, standby: Sequence[Placement] = ()) -> bool:
        """Restore the previous version, which as a rule is still loaded, and of ``standby`` those below it."""
        try:
            lower = [entry for entry in standby if entry.version < previous.version]
            self._load([*(entry for entry in lower if _have_one_backend(entry, previous)), previous])
            return self.canary(previous) is None
        except ControlError:
            return False

    def _takes_loads(self, previous: Placement | None) -> bool:
        """Whether the server goes on after the backend of a hung load was ended."""
        try:
            if previous is None:
                self.control.unload(self.store.model)
            else:
                # It is loaded, so this takes milliseconds once the server takes loads.
                self._load([previous], seconds=GIVE_UP_SECONDS)
        except ControlError as error:
            return not error.timed_out
        return True

    def _is_gone(self) -> bool:
        """Whether the server has ended, or is about to: then its last answer says nothing about a variant."""
        try:
            self.control.ready_versions(self.store.model)
        except ControlError as error:
            return error.unreachable
        return False

    def _wait_until_unloaded(self) -> None:
        deadline = time.monotonic() + UNLOAD_SECONDS
        while self.control.ready_versions(self.store.model) and time.monotonic() < deadline:
            time.sleep(0.02)


def _have_one_backend(one: Placement, other: Placement) -> bool:
    return (one.variant.split is None) == (other.variant.split is None)


def _require_lower(standby: Sequence[Placement], *, than: Placement) -> None:
    if any(placement.version >= than.version for placement in standby):
        raise ValueError("a standby of a higher version would take the target's requests")
    if not all(_have_one_backend(placement, than) for placement in standby):
        raise ValueError("a split and variants of one node have different backends, and a load has one")
