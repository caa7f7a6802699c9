"""Outcome of Jobs and the termination messages of their pods, from the objects of the API server. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.contract.job_report import JobReport, report_of_message
from edgefolio.contract.pod import JOB_CONTAINER
from edgefolio.specification.conditions import readable_time
from edgefolio_operator import labels
from edgefolio_operator.kube.objects import Object, is_controlled_by

ENDED = ("Succeeded", "Failed")
_STARTING = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True, kw_only=True)
class ObservedJob:
    """A Job of this portfolio, with the last report of its pods.

    ``pieces``: number that its pods make; 0 for a Job that makes all. ``waiting``: why no pod runs.
    ``died``: how its last pod ended without a report. ``overdue``: since when (seconds) which pod should have ended.
    ``starting_since``: since when its newest pod is there without having started.
    """

    name: str
    key: str
    request: str
    outcome: str
    suspend: bool
    start_time: str | None
    completion_time: str | None
    report: JobReport | None
    message: str
    pieces: int = 0
    pieces_made: int = 0
    is_leaving: bool = False
    waiting: str = ""
    died: str = ""
    overdue: tuple[float, str] | None = None
    starting_since: float | None = None


def observed_jobs(jobs: Sequence[Object], pods: Sequence[Object], component: str) -> tuple[ObservedJob, ...]:
    """Those of ``jobs`` that are for ``component``, with the reports of their ``pods``.

    A pod is heard if the Job controls it: its message is the digest that endpoints trust, and labels anybody can set.
    """
    return tuple(
        observed_job(job, _pods_of(job, pods))
        for job in jobs
        if job["metadata"].get("labels", {}).get(labels.COMPONENT_LABEL) == component
    )


def observed_job(job: Object, pods: Sequence[Object]) -> ObservedJob:
    """State of ``job``, with the termination messages of its ``pods``, oldest first."""
    metadata, spec, status = job["metadata"], job.get("spec", {}), job.get("status", {})
    conditions = {entry.get("type"): entry for entry in status.get("conditions", ()) if entry.get("status") == "True"}
    if "Complete" in conditions or "SuccessCriteriaMet" in conditions:
        outcome = "Succeeded"
    elif "Failed" in conditions or "FailureTarget" in conditions:
        outcome = "Failed"
    else:
        outcome = "Suspended" if spec.get("suspend") else "Running"
    ends = [end for pod in pods for end in _ends(pod)]
    reports = [report for end in ends if (report := report_of_message(str(end.get("message", "")))) is not None]
    ended = conditions.get("Failed") or conditions.get("FailureTarget") or {}
    annotations = metadata.get("annotations", {})
    return ObservedJob(
        name=metadata["name"],
        key=annotations.get(labels.HASH_ANNOTATION, ""),
        request=annotations.get(labels.REQUEST_ANNOTATION, "")[:128],
        outcome=outcome,
        suspend=bool(spec.get("suspend")),
        start_time=_instant(status.get("startTime")),
        completion_time=_instant(status.get("completionTime")) or _instant(ended.get("lastTransitionTime")),
        report=reports[-1] if reports else None,
        message=str(ended.get("message", "")),
        pieces=_count(annotations.get(labels.PIECES_ANNOTATION, "")),
        pieces_made=max(0, status.get("succeeded", 0)),
        is_leaving=bool(metadata.get("deletionTimestamp")),
        waiting="" if any(_runs(pod) for pod in pods) or not pods else _waiting(pods[-1]),
        died=_died(ends[-1]) if ends else "",
        overdue=min((entry for pod in pods if (entry := _overdue(pod)) is not None), default=None),
        starting_since=_starting_since(pods),
    )


def _pods_of(job: Object, pods: Sequence[Object]) -> list[Object]:
    """The pods that ``job`` controls, oldest first."""
    own = [pod for pod in pods if is_controlled_by(pod, job)]
    return sorted(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def _ends(pod: Object) -> list[Object]:
    """Terminated states of the container of ``pod``, the earlier one first."""
    return [
        state["terminated"]
        for container in pod.get("status", {}).get("containerStatuses", ())
        if container.get("name") == JOB_CONTAINER
        for state in (container.get("lastState", {}), container.get("state", {}))
        if state.get("terminated")
    ]


def _died(end: Object) -> str:
    if report_of_message(str(end.get("message", ""))) is not None or not end.get("exitCode"):
        return ""
    remedy = "; give it more memory (spec.job.resources)" if end.get("reason") == "OOMKilled" else ""
    return f"{end.get('reason') or 'Error'}, exit code {end['exitCode']}{remedy}"


def _runs(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def _starting_since(pods: Sequence[Object]) -> float | None:
    created = str(pods[-1].get("metadata", {}).get("creationTimestamp") or "") if pods else ""
    if not created or pods[-1].get("status", {}).get("phase") not in (None, "Pending"):
        return None
    return readable_time(created)


def _waiting(pod: Object) -> str:
    """Kubernetes' reason why ``pod`` is not scheduled or does not start; empty otherwise."""
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"The pod has no node: {condition.get('message', '')}"[:500]
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _STARTING:
            return f"The container does not start: {waiting['reason']}: {waiting.get('message', '')}"[:500]
    return ""


def _overdue(pod: Object) -> tuple[float, str] | None:
    """Since when ``pod`` should have ended, and its name. The deletion timestamp includes the grace period."""
    told = pod.get("metadata", {}).get("deletionTimestamp")
    if not told or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return None
    since = readable_time(told)
    return None if since is None else (since, str(pod["metadata"]["name"]))


def _instant(text: str | None) -> str | None:
    """A time that another program wrote, if it is one."""
    return text if readable_time(text) is not None else None


def _count(text: str) -> int:
    """A number of pieces, in an annotation that people can edit."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
