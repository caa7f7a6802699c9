"""Status as a JSON document: the tree's contents, numbers as numbers."""

from __future__ import annotations

from typing import Any

from edgefolio.specification.conditions import StatusRecord
from edgefolio_kubectl.views import EndpointView, PortfolioView


def status_document(portfolios: tuple[PortfolioView, ...], *, now: float) -> dict[str, Any]:
    """All portfolios."""
    return {"portfolios": [_portfolio(entry, now=now) for entry in portfolios]}


def _portfolio(portfolio: PortfolioView, *, now: float) -> dict[str, Any]:
    status = portfolio.status
    return {
        "namespace": portfolio.namespace,
        "name": portfolio.name,
        "exists": portfolio.exists,
        "outdated": portfolio.outdated,
        "policy": (portfolio.spec.get("switching") or {}).get("policy", "Auto"),
        "currentRevision": status.current_revision,
        "conditions": {
            entry.type: {"status": entry.status, "reason": entry.reason, "message": entry.message}
            for entry in status.conditions
        },
        "job": _plain(status.job),
        "check": _plain(status.check),
        "rollout": _plain(status.rollout),
        "revisions": [
            {
                "number": revision.number,
                "manifestDigest": revision.manifest_digest,
                "publishedTime": revision.published_time,
                "variants": [
                    {
                        "name": variant.name,
                        "rank": variant.rank,
                        "accuracyPercent": float(variant.accuracy_percent),
                        "p95Milliseconds": float(variant.p95_milliseconds),
                        "memoryBytes": max(variant.memory_peak_bytes, variant.memory_steady_bytes),
                        "servingEndpoints": portfolio.serving(variant.name, revision.number),
                    }
                    for variant in revision.variants
                ],
                "splits": [
                    {
                        "name": split.name,
                        "rank": split.rank,
                        "workers": split.workers,
                        "accuracyPercent": float(split.accuracy_percent),
                        "predictedMilliseconds": float(split.predicted_milliseconds),
                        "receivedBytes": split.received_bytes,
                        "memoryBytes": split.memory_bytes,
                    }
                    for split in revision.splits
                ],
            }
            for revision in status.revisions
        ],
        "endpoints": [_endpoint(portfolio, entry, now=now) for entry in portfolio.endpoints],
        "lastFailure": _plain(status.last_failure),
    }


def _endpoint(portfolio: PortfolioView, endpoint: EndpointView, *, now: float) -> dict[str, Any]:
    revision = portfolio.revision(endpoint.revision)
    observed = endpoint.last_observation(revision.variants if revision is not None else (), now=now)
    current, status = endpoint.current_decision, endpoint.status
    return {
        "name": endpoint.name,
        "node": endpoint.node,
        "activeVariant": status.active_variant,
        "activeRevision": status.active_revision,
        "targetVariant": endpoint.target,
        "targetRevision": endpoint.revision,
        "objectives": None
        if endpoint.spec is None
        else endpoint.spec.objectives.model_dump(mode="json", by_alias=True, exclude_none=True),
        "objectivesMet": None if status.decision is None else status.decision.objectives_met,
        "observation": None
        if observed is None
        else {
            "ageSeconds": round(observed.age_seconds, 1),
            "stale": observed.stale,
            "server": observed.server,
            "p95Milliseconds": observed.p95_milliseconds,
            "p95IsEstimated": observed.p95_is_estimated,
            "requestsPerSecond": observed.requests_per_second,
            "workingSetBytes": observed.working_set_bytes,
            "memoryLimitBytes": observed.memory_limit_bytes,
        },
        "decision": None
        if current is None
        else {"action": current.action.value, "reason": current.reason, "message": current.message, "by": current.by},
        "autonomous": endpoint.autonomous,
        "pinned": endpoint.pinned,
        "paused": endpoint.paused,
        "lastFailure": _plain(status.last_failure),
    }


def _plain(record: StatusRecord | None) -> dict[str, Any] | None:
    return None if record is None else record.model_dump(mode="json", by_alias=True, exclude_none=True)
