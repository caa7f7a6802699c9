"""Resources shared by portfolios: claimed pods and repositories, nodes, and memory reserved there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgefolio_operator.endpoints.memory_reservations import Promise, ReservationLedger, Reservations
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.ownership import ClaimIndex, PortfolioKey, RepositoryIndex, key_of, pods_claimed


class SharedResources:
    """Indexes updated portfolio by portfolio; updates return the keys of affected portfolios."""

    def __init__(self) -> None:
        self._pods: ClaimIndex[tuple[str, str]] = ClaimIndex()
        self._repositories = RepositoryIndex()
        self._nodes: dict[PortfolioKey, frozenset[str]] = {}
        self._on_node: dict[str, set[PortfolioKey]] = {}
        self._ledger = ReservationLedger()

    def claim(self, portfolio: Object, pods: Sequence[Object] | None = None) -> set[PortfolioKey]:
        """``portfolio`` claims its repository and, where they are known, ``pods``."""
        affected = self._repositories.update(portfolio)
        if pods is not None:
            affected |= self._pods.update(portfolio, pods_claimed(pods))
            nodes = (pod["spec"].get("nodeName") for pod in pods)
            self._set_nodes(key_of(portfolio), frozenset(str(node) for node in nodes if node))
        return affected

    def remove(self, key: PortfolioKey) -> set[PortfolioKey]:
        """A portfolio is gone."""
        affected = self._repositories.remove(key) | self._pods.remove(key)
        if key in self._ledger:
            affected |= self._neighbours(key, self._ledger.remove(key))
        self._set_nodes(key, frozenset())
        return affected

    def lost_pods(self, key: PortfolioKey) -> dict[str, PortfolioKey]:
        """Pods claimed by a portfolio but owned by an older one, by name."""
        return {pod: owner for (_, pod), owner in self._pods.lost(key).items()}

    def pod_owner(self, namespace: str, pod: str) -> PortfolioKey | None:
        """The portfolio that has a pod."""
        return self._pods.owner((namespace, pod))

    def repository_owner(self, key: PortfolioKey) -> PortfolioKey | None:
        """The other portfolio that publishes to the repository of this one, and did so first."""
        return self._repositories.owner(key)

    def on_node(self, node: str) -> frozenset[PortfolioKey]:
        """Portfolios with pods on a node."""
        return frozenset(self._on_node.get(node, ()))

    def has_promises(self, key: PortfolioKey) -> bool:
        """Whether a portfolio's promises were recorded, even if empty."""
        return key in self._ledger

    def promise(self, key: PortfolioKey, promises: Iterable[Promise]) -> set[PortfolioKey]:
        """Set the promises of a portfolio's endpoints."""
        return self._neighbours(key, self._ledger.record(key, tuple(promises)))

    def reservations(self, key: PortfolioKey) -> Reservations:
        """The promises of a portfolio's endpoints, and others' on its nodes."""
        return self._ledger.reservations(key, nodes=self._nodes.get(key, ()))

    def _neighbours(self, key: PortfolioKey, nodes: Iterable[str]) -> set[PortfolioKey]:
        return {other for node in nodes for other in self._on_node.get(node, ())} - {key}

    def _set_nodes(self, key: PortfolioKey, nodes: frozenset[str]) -> None:
        before = self._nodes.pop(key, frozenset())
        for node in before - nodes:
            self._on_node[node].discard(key)
            if not self._on_node[node]:
                del self._on_node[node]
        for node in nodes - before:
            self._on_node.setdefault(node, set()).add(key)
        if nodes:
            self._nodes[key] = nodes
