"""Reasons of events and conditions, and of failures that a status names: each is one word that users search for.

A hold or a switch has a reason of the decision, see :class:`edgefolio.decision.types.Reason`.
``docs/cluster/troubleshooting.md`` explains all of them.
"""

from __future__ import annotations

from edgefolio.decision.types import Reason

# Ready, Reconciling, Stalled
SERVING = "Serving"
NO_REVISION = "NoRevision"
WAITING_FOR_REVISION = "WaitingForRevision"
MAKING = "Making"
FIRST_MAKING = "FirstMaking"
NO_ENDPOINTS = "NoEndpoints"
ENDPOINTS_STARTING = "EndpointsStarting"
ENDPOINTS_UNAVAILABLE = "EndpointsUnavailable"
PODS_NOT_CREATED = "PodsNotCreated"
PODS_NOT_STARTING = "PodsNotStarting"
IMAGE_NOT_PULLED = "ImageNotPulled"
SECRET_MISSING = "SecretMissing"
UNSCHEDULABLE = "Unschedulable"
ENDPOINTS_UNKNOWN = "EndpointsUnknown"
ROLLING_OUT = "RollingOut"
SETTLED = "Settled"
STALLED = "Stalled"
NOTHING_TO_MEND = "NothingToMend"
INVALID_SPEC = "InvalidSpec"
UNKNOWN_REVISION = "UnknownRevision"
REPOSITORY_OWNED = "RepositoryOwned"
RESOURCE_CONFLICT = "ResourceConflict"
BAD_INPUT = "BadInput"
MAKING_FAILED = "MakingFailed"

# Making, Degraded
JOB_RUNNING = "JobRunning"
NO_JOB_RUNNING = "NoJobRunning"
AS_EXPECTED = "AsExpected"

# Objectives and annotations
OBJECTIVES_MET = Reason.OBJECTIVES_MET.value
OBJECTIVES_NOT_MET = Reason.OBJECTIVES_NOT_MET.value
MISSING_METRICS = Reason.MISSING_METRICS.value
ACCEPTED = "Accepted"
OBJECTIVE_IGNORED = "ObjectiveIgnored"
UNKNOWN_OBJECTIVE = "UnknownObjective"
MALFORMED_OBJECTIVE = "MalformedObjective"
OBJECTIVE_NOT_TIGHTENED = "ObjectiveNotTightened"
UNKNOWN_VARIANT = "UnknownVariant"
MALFORMED_PAUSE = "MalformedPause"

# NodeMetricsAvailable
SOURCE_UNAVAILABLE = "SourceUnavailable"
NOT_ASKED_YET = "NotAskedYet"
METRICS_FRESH = "MetricsFresh"
METRICS_STALE = "MetricsStale"

# KnownVulnerabilities
OUTDATED_TRITON = "OutdatedTriton"
NONE_KNOWN = "NoneKnown"

# PublisherCredentialsOnNodes
SHARED_SECRET = "SharedSecret"
NO_SHARED_SECRET = "NoSharedSecret"
# ReportsAccepted, ClocksAgree, OrdersAccepted
INVALID_REPORT = "InvalidReport"
REPORTS_ACCEPTED = "ReportsAccepted"
CLOCK_SKEW = "ClockSkew"
CLOCKS_AGREE = "ClocksAgree"
ORDER_REFUSED = "OrderRefused"
ORDERS_ACCEPTED = "OrdersAccepted"

# Conflicted, Compatible
NO_CONFLICT = "NoConflict"
POD_CLAIMED = "PodClaimed"
MANAGED = "Managed"
ADOPTED = "Adopted"
NO_PODS = "NoPods"
PARTS_MISSING = "PartsMissing"

# Checks of a repository that others publish to
CHECK_FAILED = "CheckFailed"
NOTHING_PUBLISHED = "NothingPublished"
REPOSITORY_READ = "RepositoryRead"
REPOSITORY_UNREACHABLE = "RepositoryUnreachable"
REVISION_REFUSED = "RevisionRefused"
REVISION_CHANGED = "RevisionChanged"
REVISION_WENT_BACK = "RevisionWentBack"

# ProfilesMeasured
PROFILED = "Profiled"
PROFILING = "Profiling"
PROFILING_FAILED = "ProfilingFailed"
NOT_ASKED = "NotAsked"

# Rollouts: their failures, and their phases as events
LOAD_FAILED = "LoadFailed"
INSUFFICIENT_STORAGE = "InsufficientStorage"
WAITING_FOR_APPROVAL = "WaitingForApproval"
ENDPOINTS_LEFT_BEHIND = "EndpointsLeftBehind"
ROLLOUT_PHASES = {
    "Progressing": "RolloutProgressing",
    "Completed": "RolloutCompleted",
    "Paused": "RolloutPaused",
    "RolledBack": "RolloutRolledBack",
}

# Deletion
STOPPING_JOBS = "StoppingJobs"
DELETING_REVISIONS = "DeletingRevisions"
RECLAIM_FAILED = "ReclaimFailed"
REPOSITORY_RECLAIMED = "RepositoryReclaimed"
REPOSITORY_RETAINED = "RepositoryRetained"

# Events alone
PUBLISHED = "Published"
POD_LOST = "PodLost"
WRITE_REFUSED = "WriteRefused"
DRIFT_CORRECTED = "DriftCorrected"
RECONCILE_FAILED = "ReconcileFailed"
SWITCH = "Switch"
