"""Ownership of pods and repositories that several portfolios claim: the oldest claimant has it. Pure.

A pod can be claimed by two selectors, or by a selector and the portfolio that made it; a repository and a model's name
by two portfolios that make revisions. Older is the one that was created first; of two of the same second the one whose
namespace and name sort first.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from edgefolio_operator import reasons
from edgefolio_operator.kube.objects import Object

#: Namespace and name of a ModelPortfolio.
PortfolioKey = tuple[str, str]
Seniority = tuple[str, str, str, str]
C = TypeVar("C", bound=Hashable)


def key_of(portfolio: Object) -> PortfolioKey:
    """Namespace and name."""
    return str(portfolio["metadata"].get("namespace", "")), str(portfolio["metadata"]["name"])


def display_name(key: PortfolioKey) -> str:
    """A portfolio as messages name it."""
    return "/".join(key)


def seniority(portfolio: Object) -> Seniority:
    """Sorts portfolios by age, the oldest first; no two are alike."""
    metadata = portfolio["metadata"]
    # Kubernetes writes times in one format, so that they sort as texts.
    return (str(metadata.get("creationTimestamp") or ""), *key_of(portfolio), str(metadata.get("uid", "")))


class ClaimIndex(Generic[C]):
    """Index of claims, updated portfolio by portfolio: the oldest claimant is the owner.

    One that is being deleted keeps what it claims until it is gone.
    """

    def __init__(self) -> None:
        self._claims: dict[PortfolioKey, tuple[Seniority, frozenset[C]]] = {}
        self._claimants: dict[C, set[PortfolioKey]] = {}

    def update(self, portfolio: Object, claims: Iterable[C]) -> set[PortfolioKey]:
        """``portfolio`` claims exactly this; returns the other portfolios whose losses that may change."""
        return self._set(key_of(portfolio), (seniority(portfolio), frozenset(claims)))

    def remove(self, key: PortfolioKey) -> set[PortfolioKey]:
        """A portfolio is gone; returns the others that claimed the same."""
        return self._set(key, None)

    def owner(self, claim: C) -> PortfolioKey | None:
        """The oldest claimant."""
        return min(self._claimants.get(claim, ()), key=lambda key: self._claims[key][0], default=None)

    def lost(self, key: PortfolioKey) -> dict[C, PortfolioKey]:
        """Claims of a portfolio that an older one owns, with that owner."""
        _, claims = self._claims.get(key, (None, ()))
        contested = [claim for claim in claims if len(self._claimants[claim]) > 1]
        return {claim: owner for claim in contested if (owner := self.owner(claim)) not in (None, key)}

    def _set(self, key: PortfolioKey, entry: tuple[Seniority, frozenset[C]] | None) -> set[PortfolioKey]:
        before = self._claims.get(key)
        if entry == before:
            return set()
        affected = self._others(key)
        for claim in before[1] if before is not None else ():
            self._claimants[claim].discard(key)
            if not self._claimants[claim]:
                del self._claimants[claim]
        self._claims.pop(key, None)
        if entry is not None:
            self._claims[key] = entry
            for claim in entry[1]:
                self._claimants.setdefault(claim, set()).add(key)
        return affected | self._others(key)

    def _others(self, key: PortfolioKey) -> set[PortfolioKey]:
        _, claims = self._claims.get(key, (None, ()))
        return {other for claim in claims for other in self._claimants[claim]} - {key}


def pods_claimed(pods: Iterable[Object]) -> frozenset[tuple[str, str]]:
    """Namespaces and names of ``pods``."""
    return frozenset((str(pod["metadata"].get("namespace", "")), str(pod["metadata"]["name"])) for pod in pods)


def repositories_claimed(portfolio: Object) -> tuple[tuple[str, ...], ...]:
    """Where a portfolio publishes; those that only follow a repository share it."""
    place = _place(portfolio)
    return () if place is None else (place,)


def repository_owned(owner: PortfolioKey) -> tuple[str, str]:
    """Reason and message of a portfolio that may not make because of ``owner``."""
    return reasons.REPOSITORY_OWNED, (
        f"The older ModelPortfolio {display_name(owner)} makes the same model into spec.repository.uri. "
        "Make another ModelPortfolio with another uri or serving.modelName, or take spec.source away to follow."
    )


def _place(portfolio: Object) -> tuple[str, ...] | None:
    """Where a portfolio publishes; ``None`` if it makes nothing, or is unreadable."""
    spec = portfolio.get("spec")
    if not isinstance(spec, Mapping) or not spec.get("source"):
        return None
    try:
        uri, model = str(spec["repository"]["uri"]).rstrip("/"), str(spec["serving"]["modelName"])
    except (KeyError, TypeError):
        return None
    # Claims of the same name in two namespaces are two volumes.
    return uri, model, key_of(portfolio)[0] if uri.startswith("pvc:") else ""
