"""Supervisor of the server: restarts its own, reattaches to another's, detects when only a restart helps."""

from __future__ import annotations

from edgefolio.components import triton_notice, triton_release
from edgefolio.errors import UserError
from edgefolio.specification.serving import Switching
from edgefolio_edge import reasons
from edgefolio_edge.agent.cycle_result import CycleFailure
from edgefolio_edge.agent.options import AgentOptions, AgentOutputs
from edgefolio_edge.agent.records.change_log import ChangeLog
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.probe import batch_of
from edgefolio_edge.observation.observer import Observer
from edgefolio_edge.triton.client import ControlError, TritonControl
from edgefolio_edge.triton.host import Host
from edgefolio_edge.triton.launcher.server import STOP_SECONDS
from edgefolio_edge.triton.placement import Placement
from edgefolio_edge.triton.switcher import Switcher

#: A server that runs but answers no control call for this many cycles is restarted.
SILENT_CYCLES_UNTIL_RESTART = 3
#: After this many crashes in a row during loads of one variant, the variant is blamed.
DEATHS_UNTIL_BLAMED = 2
#: Seconds for one inference of a server that does not answer control calls.
INFERENCE_SECONDS = 2.0
#: A server with a hung load would use its whole grace period, while users wait for the next one.
QUICK_STOP_SECONDS = 1.0


class ServerSupervisor:
    """The server of an agent, with the clients of its current process."""

    def __init__(
        self,
        host: Host,
        store: ModelStore,
        *,
        options: AgentOptions,
        outputs: AgentOutputs,
        changes: ChangeLog,
        switching: Switching,
    ) -> None:
        """In a dry run the server is unmanaged: it is neither started again nor asked to restart."""
        self.host = host
        self.health = outputs.health
        self.starts = 0
        #: Why the server cannot be used; ``None`` while it can.
        self.trouble: str | None = None
        self._store = store
        self._reporter = outputs.reporter
        self._changes = changes
        self._metrics = outputs.metrics
        self._switching = switching
        self._memory_limit_bytes = options.memory_limit_bytes
        self._is_unmanaged = options.dry_run
        self._silent_cycles = 0
        self._deaths: tuple[str, int] = ("", 0)
        self._active: Placement | None = None
        self._warned: str | None = None
        #: The last requested restart, until a cycle's result reports it.
        self.failure: CycleFailure | None = None
        self._connect()

    def use(self, switching: Switching) -> None:
        """Apply other switching rules to the observation."""
        self._switching = switching
        self.observer.use(switching)

    def close(self) -> None:
        """Close the connections; the server runs on."""
        self.observer.close()
        self.control.close()

    def runs(self) -> bool:
        """Whether the server runs. One that ended is restarted or reattached to."""
        if self.host.is_alive():
            self._keep_gateway()
            return True
        self._metrics.serving(None, None)
        if not self.host.is_ours:
            return self._attach_again()
        if not self.host.may_restart() or self._is_unmanaged:
            return False
        self._reporter.event("died", "Triton died; it is started again.", log=self.host.log_tail() or None)
        return self._restart()

    def _keep_gateway(self) -> None:
        if self.host.has_gateway():
            return
        self._reporter.event("gateway", "The HTTP gateway ended; it is started again.")
        self._metrics.repaired("gateway")
        try:
            self.host.restart_gateway()
        except UserError as error:
            self._changes.error(error)

    def ready_versions(self) -> tuple[int, ...] | None:
        """The versions that the server reports ready; ``None`` if it does not answer."""
        try:
            ready = self.observer.ready_versions()
        except ControlError as error:
            self._handle_silence(error)
            return None
        self._silent_cycles = 0
        self.trouble = None
        return ready

    def verified(self, active: Placement) -> None:
        """Note a verified inference of ``active``: failure counters are reset."""
        self._active = active
        self.host.reset_backoff()
        self.health.serves()
        self._deaths = ("", 0)

    def ended_during(self, variant: str) -> bool:
        """Count a crash of the server while it loaded ``variant``. Returns whether the variant is now blamed."""
        deaths = self._deaths[1] + 1 if self._deaths[0] == variant else 1
        blamed = deaths >= DEATHS_UNTIL_BLAMED
        self._deaths = ("", 0) if blamed else (variant, deaths)
        if not self.host.is_ours:
            self._lose()
        return blamed

    def restart_or_request(self, why: str) -> bool:
        """Restart our own server; request a restart of another's. Returns whether it was restarted now."""
        self._metrics.serving(None, None)
        if self.host.is_ours:
            return self.host.may_restart() and self._restart(seconds=QUICK_STOP_SECONDS)
        if self.health.is_enabled and not self.health.wants_restart:
            message = f"Triton must be restarted. {why}"
            # No revision is named: the server's failure says nothing about the revision.
            self.failure = CycleFailure(reason=reasons.RESTART_NEEDED, message=message)
            self._reporter.event("condemned", message)
            self._metrics.repaired("server")
        self.health.condemn()
        return False

    def _connect(self) -> None:
        """Make new clients, for the first server or a new one."""
        self.starts += 1
        endpoint = self.host.endpoint
        notice = triton_notice(triton_release(endpoint.version))
        if notice is not None and notice != self._warned:
            self._reporter.event("vulnerable", notice, version=endpoint.version)
        self._warned = notice
        self.control: TritonControl = endpoint.control()
        self.switcher = Switcher(
            self.control,
            self._store,
            warm_up=not endpoint.has_our_backend,
            end_load=endpoint.end_backend_of,
            lack_of_room=endpoint.lack_of_room,
            is_loading=endpoint.is_loading,
        )
        self.observer = Observer(
            endpoint,
            self.control,
            self.switcher,
            memory_limit_bytes=self._memory_limit_bytes,
            switching=self._switching,
        )

    def _restart(self, *, seconds: float = STOP_SECONDS) -> bool:
        """Restart our server; the old one gets ``seconds`` to stop. An error is logged, and ``False`` returned."""
        self._metrics.repaired("server")
        self._metrics.serving(None, None)
        self.close()
        try:
            self.host.restart(seconds=seconds)
        except UserError as error:
            # A server that could not be recorded runs all the same.
            self._changes.error(error)
            return False
        finally:
            self._connect()
        return True

    def _attach_again(self) -> bool:
        """Reattach to another's server. A restarted one has no model loaded."""
        is_another = self.host.was_found
        if is_another:
            self.health.fails()
        try:
            self.host.find_again()
        except UserError as error:
            self.trouble = error.problem
            self._changes.waiting(error)
            if isinstance(error.__cause__, ControlError) and error.__cause__.timed_out:
                self._count_silence()
            return False
        self._silent_cycles = 0
        self.trouble = None
        self.close()
        self._connect()
        if is_another:
            self.health.renewed()
        return True

    def _handle_silence(self, error: ControlError) -> None:
        self.trouble = f"The server does not answer the control calls: {error}"
        if self._silent_cycles == 0:
            self._reporter.event("silent", "The server does not answer the control calls.", cause=str(error))
        if not self.host.is_ours and not error.timed_out:
            # Its process has ended, or it refuses us: reattach after its owner has restarted it.
            self._lose()
        else:
            self._count_silence()

    def _count_silence(self) -> None:
        self._silent_cycles += 1
        if self._silent_cycles >= SILENT_CYCLES_UNTIL_RESTART and not self._is_unmanaged:
            self._silent_cycles = 0
            if not self._answers_inference():
                self.restart_or_request("It answers no control call.")

    def _answers_inference(self) -> bool:
        """Whether users are served all the same, as where too many connections leave none for control."""
        if self._active is None:
            return False
        inputs = batch_of(self._active.manifest, self._active.variant.probe, samples=1)
        control = self.host.endpoint.control()
        try:
            control.infer(self._store.model, inputs, version=self._active.version, seconds=INFERENCE_SECONDS)
        except ControlError:
            return False
        finally:
            control.close()
        return True

    def _lose(self) -> None:
        self._silent_cycles = 0
        self.health.fails()
        self.host.lose()
