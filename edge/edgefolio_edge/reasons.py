"""Reasons of an endpoint's conditions and of its last failure; those of a decision are in :mod:`edgefolio.decision`."""

from __future__ import annotations

# Ready
SERVING = "Serving"
NOTHING_SYNCED = "NothingSynced"
NOTHING_SERVED = "NothingServed"
SERVER_UNREACHABLE = "ServerUnreachable"
SERVER_DEAD = "ServerDead"

# Synced
VERIFIED = "Verified"
FETCHING = "Fetching"
NOTHING_PUBLISHED = "NothingPublished"
REFUSED = "Refused"
UNREACHABLE = "Unreachable"
INSUFFICIENT_STORAGE = "InsufficientStorage"
REVISION_WENT_BACK = "RevisionWentBack"

# ObjectivesMet
MET = "Met"
NOT_KNOWN = "NotKnown"

# Autonomous
CUT_OFF = "CutOff"
CONNECTED = "Connected"
DESCENDED_AS_ORDERED = "DescendedAsOrdered"

# SharedMemorySufficient
SUFFICIENT = "Sufficient"
BATCH_BOUNDED = "BatchBounded"

# KnownVulnerabilities
OUTDATED_TRITON = "OutdatedTriton"
NONE_KNOWN = "NoneKnown"

# decision
ORDERED = "Ordered"

# lastFailure
LOAD_FAILED = "LoadFailed"
RESTART_NEEDED = "RestartNeeded"
INSUFFICIENT_RESOURCES = "InsufficientResources"
REVISION_REFUSED = "RevisionRefused"
