"""Two portfolios that want the same: the older one has it, the other one says so and leaves it alone. Pure.

A pod can be claimed by two selectors, or by a selector and the portfolio that made it; a repository and a model's name
by two portfolios that make revisions. Older is the one that was created first; of two of the same second the one whose
namespace and name come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]
#: Namespace and name of a ModelPortfolio.
PortfolioKey = tuple[str, str]


def key_of(portfolio: Object) -> PortfolioKey:
    """Namespace and name."""
    return str(portfolio["metadata"].get("namespace", "")), str(portfolio["metadata"]["name"])


def display_name(key: PortfolioKey) -> str:
    """A portfolio as messages name it."""
    return "/".join(key)


def seniority(portfolio: Object) -> tuple[str, str, str, str]:
    """Sorts portfolios by age, the oldest first; no two are alike."""
    metadata = portfolio["metadata"]
    # Kubernetes writes times in one format, so that they sort as texts.
    return (str(metadata.get("creationTimestamp") or ""), *key_of(portfolio), str(metadata.get("uid", "")))


def lost_pods(claims: Iterable[tuple[Object, Sequence[Object]]]) -> dict[PortfolioKey, dict[str, PortfolioKey]]:
    """Per portfolio the names of the pods that it claims and an older one has, with that one.

    ``claims`` holds every portfolio with the pods that it selects. One that is being deleted has its pods until it is
    gone, and their endpoints with it.
    """
    owners: dict[tuple[str, str], PortfolioKey] = {}
    lost: dict[PortfolioKey, dict[str, PortfolioKey]] = {}
    for portfolio, pods in sorted(claims, key=lambda claim: seniority(claim[0])):
        key = key_of(portfolio)
        for pod in pods:
            name = str(pod["metadata"]["name"])
            owner = owners.setdefault((str(pod["metadata"].get("namespace", "")), name), key)
            if owner != key:
                lost.setdefault(key, {})[name] = owner
    return lost


def repository_owners(portfolios: Iterable[Object]) -> dict[PortfolioKey, PortfolioKey]:
    """Per portfolio that may not make, because an older one makes into the same place: that one.

    Portfolios that only follow a repository share it. One that is being deleted owns its repository until it is gone:
    what it has published may be deleted with it.
    """
    owners: dict[tuple[str, ...], PortfolioKey] = {}
    barred: dict[PortfolioKey, PortfolioKey] = {}
    for portfolio in sorted(portfolios, key=seniority):
        place = _place(portfolio)
        if place is None:
            continue
        key = key_of(portfolio)
        owner = owners.setdefault(place, key)
        if owner != key:
            barred[key] = owner
    return barred


def repository_owned(owner: PortfolioKey) -> tuple[str, str]:
    """Reason and message of a portfolio that may not make because of ``owner``."""
    return "RepositoryOwned", (
        f"The older ModelPortfolio {display_name(owner)} makes the same model into spec.repository.uri. "
        "Make another ModelPortfolio with another uri or serving.modelName, or take spec.source away to follow."
    )


def _place(portfolio: Object) -> tuple[str, ...] | None:
    """Where a portfolio publishes; ``None`` if it makes nothing, or says nothing that can be read."""
    spec = portfolio.get("spec")
    if not isinstance(spec, Mapping) or not spec.get("source"):
        return None
    try:
        uri, model = str(spec["repository"]["uri"]).rstrip("/"), str(spec["serving"]["modelName"])
    except (KeyError, TypeError):
        return None
    # Claims of the same name in two namespaces are two volumes.
    return uri, model, key_of(portfolio)[0] if uri.startswith("pvc:") else ""
