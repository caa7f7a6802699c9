"""Poller for the progress of pruning Jobs, from the last lines that their pods logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

import aiohttp

from edgefolio.contract.job_report import ProgressLine
from edgefolio.contract.pod import JOB_CONTAINER
from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.objects import Object, controller_of

logger = logging.getLogger(__name__)

#: Between two reads of the logs, and so between two changes of a status.
SECONDS_BETWEEN_READS = 5.0
_LINES = 10
_BYTES = 16_384
#: Logs come from a kubelet, whose node may be gone.
_LONGEST_READ_SECONDS = 4.0


class ProgressReader:
    """Reads the log of the newest running pod of every Job. Where that fails, the last progress stays."""

    def __init__(
        self,
        api: Api,
        *,
        pods: Callable[[], Sequence[Object]],
        is_active: Callable[[], bool],
        changed: Callable[[], None],
        seconds: float = SECONDS_BETWEEN_READS,
    ) -> None:
        self._api, self._pods, self._is_active, self._changed = api, pods, is_active, changed
        self._seconds = seconds
        self._lines: dict[tuple[str, str], ProgressLine] = {}

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                if self._is_active():
                    await self._read()
            except Exception:
                logger.exception("the progress of Jobs cannot be read")

    def of(self, namespace: str) -> Mapping[str, ProgressLine]:
        """The last line of each Job of a namespace."""
        return {job: line for (within, job), line in self._lines.items() if within == namespace}

    async def _read(self) -> None:
        pods = newest_running(self._pods())
        found = await asyncio.gather(*(self._line(pod) for pod in pods.values()))
        lines: dict[tuple[str, str], ProgressLine] = {}
        for job, line in zip(pods, found, strict=True):
            before = self._lines.get(job)
            # Another message alone changes nothing: each would be a write.
            kept = before if line is None or (before and _position(before) == _position(line)) else line
            if kept is not None:
                lines[job] = kept
        changed = {job: _position(line) for job, line in lines.items()} != {
            job: _position(line) for job, line in self._lines.items()
        }
        self._lines = lines
        if changed:
            self._changed()

    async def _line(self, pod: Object) -> ProgressLine | None:
        metadata = pod["metadata"]
        path = collection("v1", "pods", metadata["namespace"]) + f"/{metadata['name']}/log"
        parameters = {"container": JOB_CONTAINER, "tailLines": str(_LINES), "limitBytes": str(_BYTES)}
        try:
            return ProgressLine.newest_in(await self._api.text(path, parameters, longest_seconds=_LONGEST_READ_SECONDS))
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            logger.debug("the log of %s/%s: %s", metadata["namespace"], metadata["name"], error or type(error).__name__)
            return None


def newest_running(pods: Sequence[Object]) -> dict[tuple[str, str], Object]:
    """The newest pod that runs of each Job, by namespace and name of the Job."""
    newest: dict[tuple[str, str], Object] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
        owner = controller_of(pod) or {}
        is_leaving = pod["metadata"].get("deletionTimestamp")
        if owner.get("kind") == "Job" and pod.get("status", {}).get("phase") == "Running" and not is_leaving:
            newest[pod["metadata"]["namespace"], str(owner["name"])] = pod
    return newest


def _position(line: ProgressLine) -> tuple[str, int]:
    return line.stage, line.percent
