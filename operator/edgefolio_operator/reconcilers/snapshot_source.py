"""Source of snapshots: one portfolio's objects from the informers, with what it shares with others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from edgefolio_operator import labels
from edgefolio_operator.cluster_state.informers import Informers
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot, owned
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.ownership import PortfolioKey, display_name, key_of, labelled_owner
from edgefolio_operator.reconcilers.endpoint import promises_before
from edgefolio_operator.reconcilers.shared_resources import SharedResources

logger = logging.getLogger(__name__)


class SnapshotSource:
    """Takes snapshots; the claims of pods that changed are indexed before each."""

    def __init__(
        self,
        informers: Informers,
        shared: SharedResources,
        *,
        conflicts: Callable[[PortfolioKey], tuple[str, ...]],
        enqueue: Callable[[Iterable[PortfolioKey]], None],
        clock: Callable[[], float],
    ) -> None:
        """``conflicts`` tells whose names are taken; ``enqueue`` plans portfolios that a new claim affects."""
        self._informers = informers
        self._shared = shared
        self._conflicts = conflicts
        self._enqueue = enqueue
        self._clock = clock
        #: Portfolios whose pods changed since their claims were indexed.
        self._unindexed: set[PortfolioKey] = set()

    def pods_changed(self, keys: Iterable[PortfolioKey]) -> None:
        """Note that the pods or the claims of these portfolios changed."""
        self._unindexed.update(keys)

    def forget(self, key: PortfolioKey) -> None:
        """Forget a portfolio that is gone."""
        self._unindexed.discard(key)

    def index_all(self) -> None:
        """Index the claims and promises of all portfolios."""
        portfolios = self._informers.portfolios.select()
        self._unindexed.update(key_of(portfolio) for portfolio in portfolios)
        for portfolio in portfolios:
            try:
                self.of(portfolio)
            except Exception:
                # Said with its own plan, which meets the same; the others are not held up.
                logger.exception("%s: its objects cannot be read", display_name(key_of(portfolio)))

    def of(self, portfolio: Object) -> PortfolioSnapshot | None:
        """Snapshot of a portfolio; ``None`` while the pod claims of its namespace are not known."""
        key = namespace, name = key_of(portfolio)
        self._index_claims()
        pods = self._informers.pods_of(portfolio)
        if pods is None or namespace in self._informers.unknown_namespaces:
            return None
        endpoints = self._informers.endpoints.select(namespace=namespace, labels={labels.PORTFOLIO_LABEL: name})
        stored = (self._informers.endpoints.get(pod["metadata"]["name"], namespace) for pod in pods)
        snapshot = replace(
            owned(self._informers.snapshot(portfolio, pods=pods, endpoints=endpoints)),
            lost_pods=self._shared.lost_pods(key),
            occupied_pods=frozenset(
                endpoint["metadata"]["name"]
                for endpoint in stored
                if endpoint is not None and labelled_owner(endpoint) not in (None, key)
            ),
            repository_owner=self._shared.repository_owner(key),
            conflicts=self._conflicts(key),
        )
        if not self._shared.has_promises(key):
            self._shared.promise(key, promises_before(snapshot, now=self._clock()))
        return snapshot

    def _index_claims(self) -> None:
        unknown: set[PortfolioKey] = set()
        for key in self._unindexed:
            portfolio = self._informers.portfolios.get(key[1], key[0])
            if portfolio is None:
                continue
            try:
                pods = self._informers.pods_of(portfolio)
                if pods is None:
                    # Asked again: a list without pods, after a selector was changed, is no change of any pod.
                    unknown.add(key)
                self._enqueue(self._shared.claim(portfolio, pods))
            except Exception:
                logger.exception("%s: its pods cannot be read", display_name(key))
        self._unindexed = unknown
