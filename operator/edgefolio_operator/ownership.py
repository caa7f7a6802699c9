"""Ownership of pods and repositories that several portfolios claim. Pure.

A pod can be claimed by two selectors, or by a selector and the portfolio that made it: the oldest claimant has it.
Older is the one that was created first; of two of the same second the one whose namespace and name sort first.

A repository and a model's name can be claimed by two portfolios that make revisions, also of different namespaces. It
belongs to the one that published there first: only a publication shows that a portfolio has the credentials. One that
has published nothing bars nobody.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from edgefolio.specification.conditions import readable_time
from edgefolio_operator import labels, reasons
from edgefolio_operator.kube.objects import Object, object_key

#: Namespace and name of a ModelPortfolio.
PortfolioKey = tuple[str, str]
Seniority = tuple[str, str, str, str]
C = TypeVar("C", bound=Hashable)


def key_of(portfolio: Object) -> PortfolioKey:
    """Namespace and name."""
    return str(portfolio["metadata"].get("namespace", "")), str(portfolio["metadata"]["name"])


def labelled_owner(thing: Object | None) -> PortfolioKey | None:
    """The portfolio that an object is labelled with."""
    if thing is None:
        return None
    name = (thing["metadata"].get("labels") or {}).get(labels.PORTFOLIO_LABEL)
    return (object_key(thing)[0], str(name)) if name else None


def display_name(key: PortfolioKey) -> str:
    """A portfolio as messages name it."""
    return "/".join(key)


def seniority(portfolio: Object) -> Seniority:
    """Sorts portfolios by age, the oldest first; no two are alike."""
    metadata = portfolio["metadata"]
    # Kubernetes writes times in one format, so that they sort as texts.
    return (str(metadata.get("creationTimestamp") or ""), *key_of(portfolio), str(metadata.get("uid", "")))


def proof(portfolio: Object) -> Seniority | None:
    """Sorts portfolios by their first publication; ``None`` of one that has published nothing.

    The status is the operator's alone. ``publishingSince`` is missing in one that the version before wrote; then the
    oldest of its revisions that it made itself counts.
    """
    status = portfolio.get("status")
    if not isinstance(status, Mapping):
        return None
    revisions = status.get("revisions")
    made = [
        readable_time(entry.get("publishedTime"))
        for entry in (revisions if isinstance(revisions, list | tuple) else ())
        if isinstance(entry, Mapping) and entry.get("specificationHash")
    ]
    first = min((time for time in made if time is not None), default=None)
    since = readable_time(status.get("publishingSince"))
    known = first if since is None else since
    return None if known is None else (f"{known:020.3f}", *seniority(portfolio)[:3])


class ClaimIndex(Generic[C]):
    """Index of claims, updated portfolio by portfolio: the claimant that ranks first is the owner.

    One that is being deleted keeps what it claims until it is gone.
    """

    def __init__(self) -> None:
        self._claims: dict[PortfolioKey, tuple[Seniority, frozenset[C]]] = {}
        self._claimants: dict[C, set[PortfolioKey]] = {}

    def update(self, portfolio: Object, claims: Iterable[C], *, rank: Seniority | None = None) -> set[PortfolioKey]:
        """``portfolio`` claims exactly this, ranked by age; returns the others whose losses that may change."""
        return self._set(key_of(portfolio), (rank or seniority(portfolio), frozenset(claims)))

    def remove(self, key: PortfolioKey) -> set[PortfolioKey]:
        """A portfolio is gone; returns the others that claimed the same."""
        return self._set(key, None)

    def owner(self, claim: C) -> PortfolioKey | None:
        """The claimant that ranks first."""
        return min(self._claimants.get(claim, ()), key=lambda key: self._claims[key][0], default=None)

    def lost(self, key: PortfolioKey) -> dict[C, PortfolioKey]:
        """Claims of a portfolio that another one owns, with that owner."""
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


class RepositoryIndex:
    """Index of the repositories that portfolios publish to, by proof."""

    def __init__(self) -> None:
        self._index: ClaimIndex[tuple[str, ...]] = ClaimIndex()
        self._proven: dict[PortfolioKey, bool] = {}

    def update(self, portfolio: Object) -> set[PortfolioKey]:
        """``portfolio`` is as it is now; returns the others that may gain or lose the repository."""
        shown, place = proof(portfolio), place_of(portfolio)
        self._proven[key_of(portfolio)] = shown is not None
        # Behind all that have published, whose ranks begin with digits.
        rank = shown or ("~", *seniority(portfolio)[:3])
        return self._index.update(portfolio, () if place is None else (place,), rank=rank)

    def remove(self, key: PortfolioKey) -> set[PortfolioKey]:
        """A portfolio is gone."""
        self._proven.pop(key, None)
        return self._index.remove(key)

    def owner(self, key: PortfolioKey) -> PortfolioKey | None:
        """The other portfolio to which the repository of this one belongs."""
        found = next(iter(self._index.lost(key).values()), None)
        return found if found is not None and self._proven.get(found) else None


def repository_owned(owner: PortfolioKey, *, namespace: str) -> tuple[str, str]:
    """Reason and message of a portfolio of ``namespace`` that may not make because of ``owner``."""
    return reasons.REPOSITORY_OWNED, (
        f"{repository_owner_name(owner, namespace=namespace)} publishes the same model to spec.repository.uri. "
        "Make another ModelPortfolio with another uri or serving.modelName, or take spec.source away to follow."
    )


def repository_owner_name(owner: PortfolioKey, *, namespace: str) -> str:
    """``owner`` as a message in ``namespace`` may call it: names of other namespaces are not for everybody."""
    if owner[0] == namespace:
        return f"ModelPortfolio {owner[1]}"
    return "A ModelPortfolio of another namespace"


def place_of(portfolio: Object) -> tuple[str, ...] | None:
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
