"""Diagnosis of pods that do not exist or do not start, in the words of Kubernetes. Pure.

A DaemonSet says how many nodes it is for; pods that a quota or an admission policy refuses exist nowhere but in its
Events. A pod that waits for an image, a Secret or a node says so itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from edgefolio_operator import reasons
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot, adopts
from edgefolio_operator.cluster_state.warning_events import ObjectWarning
from edgefolio_operator.kube.objects import Object, has_condition, has_ended, is_controlled_by, part_of

#: A DaemonSet's controller makes a pod within this time, or something prevents it.
MISSING_SECONDS = 60.0
#: Reasons of waiting containers that pass by themselves.
_STARTING = ("ContainerCreating", "PodInitializing")
_SECRET = re.compile(r"secrets? \\?[\"']?[a-z0-9./-]+\\?[\"']? not found|non-existent secret key", re.IGNORECASE)
_IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")


@dataclass(frozen=True, kw_only=True)
class WorkloadStatus:
    """Pods that are ``missing`` of those that the DaemonSet wants, and names of pods that are ``blocked``.

    ``trouble``: reason and message; ``suspects``: uids of the objects whose Events may say why.
    """

    missing: int = 0
    blocked: frozenset[str] = frozenset()
    trouble: tuple[str, str] | None = None
    suspects: tuple[str, ...] = ()

    def with_jobs(self, jobs: WorkloadStatus) -> WorkloadStatus:
        """This, and what is wrong with the pods of ``jobs`` where that is for somebody to mend.

        The status of the Job says what else keeps them waiting.
        """
        is_secret = jobs.trouble is not None and jobs.trouble[0] == reasons.SECRET_MISSING
        trouble = jobs.trouble if is_secret and self.trouble is None else self.trouble
        return replace(self, trouble=trouble, suspects=(*self.suspects, *jobs.suspects))

    def absent(self, *, counted: Set[str], starting_seconds: float) -> tuple[tuple[str, str] | None, int]:
        """The trouble, and how many pods are missing or blocked beyond those whose endpoints are ``counted``.

        A missing pod counts when Kubernetes says why, or after ``starting_seconds`` that are too long: a DaemonSet that
        is new, or has a new node, needs a moment.
        """
        trouble = self.trouble
        if trouble is None and self.missing and starting_seconds > MISSING_SECONDS:
            trouble = reasons.PODS_NOT_CREATED, "The DaemonSet has fewer pods than nodes; its Events say why."
        return trouble, (self.missing if trouble is not None else 0) + len(self.blocked - counted)


def status_of_pods(snapshot: PortfolioSnapshot) -> WorkloadStatus:
    """The state of the pods that the operator runs itself, and of those of its Jobs."""
    in_jobs = [pod for pod in snapshot.job_pods if any(is_controlled_by(pod, job) for job in snapshot.jobs)]
    makers = workload_status(None, in_jobs, snapshot.warnings)
    if adopts(snapshot.portfolio):
        return WorkloadStatus().with_jobs(makers)
    return workload_status(snapshot.daemon_set, snapshot.pods, snapshot.warnings).with_jobs(makers)


def workload_status(
    daemon_set: Object | None, pods: Sequence[Object], warnings: Mapping[str, ObjectWarning]
) -> WorkloadStatus:
    """The state of a portfolio's pods; ``warnings`` are the newest ones about its objects, by uid."""
    missing = _missing(daemon_set, pods)
    found: list[tuple[str, str]] = []
    suspects: list[str] = []
    if daemon_set is not None and missing:
        uid = str(daemon_set["metadata"].get("uid", ""))
        suspects.append(uid)
        if uid in warnings:
            found.append((reasons.PODS_NOT_CREATED, f"{warnings[uid].reason}: {warnings[uid].message}"))
    blocked: set[str] = set()
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp") or has_ended(pod) or has_condition(pod, "Ready"):
            continue
        uid = str(pod["metadata"].get("uid", ""))
        problem = next(_problems(pod), None)
        if problem is None and _has_started(pod):
            continue
        if problem is None:
            suspects.append(uid)
            warning = warnings.get(uid)
            if warning is None or warning.reason not in ("FailedMount", "FailedCreatePodSandBox"):
                continue
            problem = (_classified(warning.message, otherwise=reasons.PODS_NOT_STARTING), warning.message)
        blocked.add(str(pod["metadata"]["name"]))
        found.append(problem)
    return WorkloadStatus(
        missing=missing, blocked=frozenset(blocked), trouble=_most_frequent(found), suspects=tuple(suspects)
    )


def _classified(message: str, *, otherwise: str) -> str:
    """The reason of a problem that Kubernetes describes as ``message``."""
    return reasons.SECRET_MISSING if _SECRET.search(message) else otherwise


def _missing(daemon_set: Object | None, pods: Iterable[Object]) -> int:
    """How many pods the DaemonSet wants and does not have; 0 while its controller has not looked at it."""
    if daemon_set is None:
        return 0
    wanted, seen = (part_of(daemon_set, "status", key) for key in ("desiredNumberScheduled", "observedGeneration"))
    generation = daemon_set["metadata"].get("generation") or 0
    if not isinstance(wanted, int) or not isinstance(seen, int) or seen < generation:
        return 0
    return max(0, wanted - sum(1 for pod in pods if not has_ended(pod)))


def _problems(pod: Object) -> Iterator[tuple[str, str]]:
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield reasons.UNSCHEDULABLE, str(condition.get("message") or "no node takes the pod")
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if not reason or reason in _STARTING:
            continue
        message = f"container {container.get('name')}: {_steady(str(reason), str(waiting.get('message') or ''))}"
        otherwise = reasons.IMAGE_NOT_PULLED if reason in _IMAGE else reasons.PODS_NOT_STARTING
        yield _classified(message, otherwise=otherwise), message


def _steady(reason: str, message: str) -> str:
    """Reason and message without what changes from one attempt to the next: each change would be told anew."""
    if reason == "CrashLoopBackOff":
        return f"{reason}: it ends again and again"
    if reason in ("ImagePullBackOff", "ErrImagePull"):
        return f"ErrImagePull: {message.rpartition('ErrImagePull: ')[2]}"
    return f"{reason}: {message}"


def _has_started(pod: Object) -> bool:
    """Whether some container of ``pod`` runs or ran: volumes are mounted then."""
    status = pod.get("status") or {}
    containers = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    states = [entry.get("state") or {} for entry in containers]
    return any("running" in state or "terminated" in state for state in states)


def _most_frequent(found: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The reason of most pods, with the first message of that reason; names of pods and figures would change it."""
    if not found:
        return None
    ((reason, _),) = Counter(reason for reason, _ in found).most_common(1)
    return reason, next(message for known, message in found if known == reason)
