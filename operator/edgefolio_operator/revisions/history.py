"""History of published revisions: which are kept, and which of them serves. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edgefolio.specification.conditions import time_seconds
from edgefolio.specification.portfolio_status import RevisionStatus
from edgefolio.specification.resource import ModelPortfolio


def kept_revisions(
    portfolio: ModelPortfolio, before: tuple[RevisionStatus, ...], published: RevisionStatus | None
) -> tuple[RevisionStatus, ...]:
    """The newest revisions and the one named by the user; a republished one keeps its first pinned digest."""
    if published is None or any(entry.number == published.number for entry in before):
        return before
    ordered = sorted((*before, published), key=lambda entry: entry.number)
    named = _named(portfolio, ordered)
    kept = ordered[-portfolio.spec.revision_history_limit :]
    if named is not None and named not in kept:
        kept = [named, *kept[1:]]
    return tuple(kept)


def current_revision(portfolio: ModelPortfolio, revisions: Sequence[RevisionStatus]) -> RevisionStatus | None:
    """The revision to serve: the user's choice, else the newest."""
    return _named(portfolio, revisions) or max(revisions, key=lambda entry: entry.number, default=None)


def first_publication(revisions: Sequence[RevisionStatus]) -> str | None:
    """When the oldest revision that was made here was published."""
    made = [entry.published_time for entry in revisions if entry.specification_hash]
    return min(made, key=time_seconds, default=None)


def _named(portfolio: ModelPortfolio, revisions: Sequence[RevisionStatus]) -> RevisionStatus | None:
    """The user's revision, by number or by digest."""
    number, digest = portfolio.spec.pinned_revision, portfolio.spec.repository.manifest_digest
    return next((entry for entry in revisions if entry.number == number or entry.manifest_digest == digest), None)
