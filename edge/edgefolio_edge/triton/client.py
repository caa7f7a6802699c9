"""Control client of a Triton, over gRPC.

Loading over HTTP freezes HTTP inference for the whole load (one event thread serves both), so nothing here uses HTTP.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from edgefolio.errors import EdgefolioError
from edgefolio_edge.models.triton_configuration import as_json

#: The protocols that only the holder of the key may use; inference, health, metadata and statistics stay open.
RESTRICTED_PROTOCOLS = ("model-repository", "model-config", "shared-memory", "trace", "logging")
#: Timeout of a load, which reads a model from disk into memory.
LOAD_SECONDS = 120.0
CALL_SECONDS = 5.0
#: A load that takes longer is watched: its answer may not come although it has ended.
_WATCHED_AFTER_SECONDS = 1.0
_WATCH_SECONDS = 0.25
#: Triton's reason for a version that was loaded before, which is no failure.
_UNLOADED = "unloaded"


@dataclass(frozen=True, kw_only=True)
class AccessKey:
    """A header's name and secret, without which the server refuses control."""

    name: str
    secret: str

    def __repr__(self) -> str:
        return f"AccessKey(name={self.name!r}, secret=...)"

    def grpc_headers(self) -> dict[str, str]:
        """Headers of a gRPC call."""
        return {f"triton-grpc-protocol-{self.name}": self.secret}

    def restriction(self) -> str:
        """The value of the server's two options that restrict control to this key."""
        return f"{','.join(RESTRICTED_PROTOCOLS)}:{self.name}={self.secret}"


class ControlError(EdgefolioError):
    """A call to the server failed. ``unreachable``: the server is gone. ``refused``: it wants a key, or another one."""

    def __init__(self, message: str, *, unreachable: bool, timed_out: bool = False, refused: bool = False) -> None:
        self.unreachable = unreachable
        self.timed_out = timed_out
        self.refused = refused
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class VersionStatistics:
    """Triton's counters for one version since it was loaded; durations in nanoseconds."""

    version: int
    successes: int
    success_nanoseconds: int
    failures: int
    queue_nanoseconds: int
    compute_nanoseconds: int
    executions: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One inference: outputs by name, the version that the server says computed them, and the time it took."""

    outputs: Mapping[str, NDArray[Any]]
    version: int
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class _States:
    """What the server says of a model's versions: those that are ready, and why others are not."""

    ready: tuple[int, ...] = ()
    failures: Mapping[int, str] = field(default_factory=dict)


class TritonControl:
    """Calls to one server. Not to be shared between threads."""

    def __init__(self, endpoint: str, *, key: AccessKey | None = None) -> None:
        """``endpoint`` is ``host:port`` of the gRPC service. Connects at the first call."""
        self.endpoint = endpoint
        self._headers = key.grpc_headers() if key is not None else {}
        self._client = self._connected()

    def _connected(self) -> Any:
        # A restarted server is back within a second: cap gRPC's reconnect backoff.
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 500)]
        limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        return triton_grpc.InferenceServerClient(self.endpoint, channel_args=[*options, *limits])

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def is_live(self) -> bool:
        """Whether the server answers at all; only an inference shows whether its backends do."""
        try:
            return bool(self._client.is_server_live(client_timeout=CALL_SECONDS))
        except InferenceServerException:
            return False

    def server_version(self) -> str:
        """Triton's version. Raises :class:`ControlError`."""
        metadata = self._call(self._client.get_server_metadata, client_timeout=CALL_SECONDS)
        return str(metadata.version)

    def ready_versions(self, model: str) -> tuple[int, ...]:
        """Versions of ``model`` that the server calls ready, ascending. Needs the key."""
        return self._states(model).ready

    def load(self, model: str, configuration: ModelConfig, *, seconds: float = LOAD_SECONDS) -> None:
        """Make exactly the versions in ``configuration`` served. Needs the key. Raises :class:`ControlError`.

        Versions that are ready stay as they are, missing ones are loaded first, the others are unloaded after.

        A Triton (2.51) whose wall clock was set back answers no load in time although it carries it out at once: so a
        load that takes long has also ended when the server's states say so, which they did not before it.
        """
        wanted = tuple(sorted(configuration.version_policy.specific.versions))
        before = self._states_if_known(model)
        call = _LoadCall(self._load_answered, model, configuration, seconds)
        if call.ends_within(_WATCHED_AFTER_SECONDS):
            return
        while not call.ends_within(_WATCH_SECONDS):
            now = self._states_if_known(model)
            if before is None or now is None:
                continue
            if now.ready == wanted != before.ready:
                self._reconnect()
                return
            for version in wanted:
                reason = now.failures.get(version)
                if reason and reason != before.failures.get(version):
                    self._reconnect()
                    raise ControlError(" ".join(reason.split()), unreachable=False)

    def _load_answered(self, model: str, configuration: ModelConfig, seconds: float) -> None:
        self._call(
            self._client.load_model,
            model,
            config=as_json(configuration),
            headers=self._headers,
            client_timeout=seconds,
        )

    def _reconnect(self) -> None:
        """Drop the connection, and with it a call that waits for its answer."""
        self._client.close()
        self._client = self._connected()

    def _states_if_known(self, model: str) -> _States | None:
        """``None`` where the server does not say, as while it is busy with a load."""
        with contextlib.suppress(ControlError):
            return self._states(model)
        return None

    def _states(self, model: str) -> _States:
        index = self._call(self._client.get_model_repository_index, headers=self._headers, client_timeout=CALL_SECONDS)
        entries = [entry for entry in index.models if entry.name == model and entry.version]
        return _States(
            ready=tuple(sorted(int(entry.version) for entry in entries if entry.state == "READY")),
            failures={
                int(entry.version): str(entry.reason)
                for entry in entries
                if entry.state == "UNAVAILABLE" and entry.reason != _UNLOADED
            },
        )

    def unload(self, model: str) -> None:
        """Stop serving ``model``. Needs the key. Returns before the last version is gone."""
        self._call(self._client.unload_model, model, headers=self._headers, client_timeout=CALL_SECONDS)

    def statistics(self, model: str) -> tuple[VersionStatistics, ...]:
        """Counters of each served version of ``model``; those of an unloaded version are gone."""
        try:
            answer = self._call(self._client.get_inference_statistics, model, client_timeout=CALL_SECONDS)
        except ControlError as error:
            if error.unreachable:
                raise
            return ()  # no version is served
        return tuple(
            VersionStatistics(
                version=int(entry.version),
                successes=int(entry.inference_stats.success.count),
                success_nanoseconds=int(entry.inference_stats.success.ns),
                failures=int(entry.inference_stats.fail.count),
                queue_nanoseconds=int(entry.inference_stats.queue.ns),
                compute_nanoseconds=int(
                    entry.inference_stats.compute_input.ns
                    + entry.inference_stats.compute_infer.ns
                    + entry.inference_stats.compute_output.ns
                ),
                executions=int(entry.execution_count),
            )
            for entry in answer.model_stats
        )

    def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        version: int | None = None,
        seconds: float = CALL_SECONDS,
    ) -> Answer:
        """Run one request, on ``version`` or on what unversioned clients reach. Raises :class:`ControlError`."""
        requested = []
        for name, values in inputs.items():
            tensor = triton_grpc.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(values))
            requested.append(tensor)
        started = time.perf_counter()
        result = self._call(
            self._client.infer,
            model,
            requested,
            model_version="" if version is None else str(version),
            client_timeout=seconds,
        )
        milliseconds = 1e3 * (time.perf_counter() - started)
        response = result.get_response()
        outputs = {output.name: result.as_numpy(output.name) for output in response.outputs}
        return Answer(outputs=outputs, version=int(response.model_version), milliseconds=milliseconds)

    def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except InferenceServerException as error:
            status = error.status() or ""
            message = " ".join(str(error.message()).split())
            # A missing key is refused as UNAVAILABLE too; the text tells the two apart.
            refused = "restricted" in message
            timed_out = "DEADLINE_EXCEEDED" in status
            unreachable = "UNAVAILABLE" in status and not refused
            raise ControlError(message, unreachable=unreachable, timed_out=timed_out, refused=refused) from error


class _LoadCall:
    """A load under way in a thread of its own."""

    def __init__(
        self,
        load: Callable[[str, ModelConfig, float], None],
        model: str,
        configuration: ModelConfig,
        seconds: float,
    ) -> None:
        self._error: Exception | None = None

        def run() -> None:
            try:
                load(model, configuration, seconds)
            except Exception as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="load", daemon=True)
        self._thread.start()

    def ends_within(self, seconds: float) -> bool:
        """Whether it ended. Raises what it raised."""
        self._thread.join(timeout=seconds)
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True
