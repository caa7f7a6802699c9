"""Pods that portfolios want to adopt: an informer for each selector, started and stopped with it.

Such pods need not carry a label of ours yet, so that no fixed selector would show them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from edgefolio_operator.endpoints.adoption_preflight import slim_adopted
from edgefolio_operator.kube.cache import Change
from edgefolio_operator.kube.client import Api, collection
from edgefolio_operator.kube.informer import Informer
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.ownership import PortfolioKey, key_of


class AdoptedPods:
    """The pods that each portfolio in mode ``Adopt`` selects."""

    def __init__(self, api: Api, tasks: asyncio.TaskGroup, *, on_change: Callable[[Change], None]) -> None:
        self._api = api
        self._tasks = tasks
        self._on_change = on_change
        self._running: dict[PortfolioKey, tuple[str, Informer, asyncio.Task[None]]] = {}

    @property
    def informers(self) -> list[Informer]:
        """All informers that run."""
        return [informer for _, informer, _ in self._running.values()]

    def follow(self, portfolios: Iterable[Object]) -> None:
        """Keep informers for what ``portfolios`` select, and no others."""
        wanted = {key_of(entry): selector for entry in portfolios if (selector := selector_of(entry)) is not None}
        for key, (selector, _, task) in list(self._running.items()):
            if wanted.get(key) != selector:
                task.cancel()
                del self._running[key]
        for key, selector in wanted.items():
            if key not in self._running:
                informer = Informer(
                    self._api,
                    collection("v1", "pods", key[0]),
                    selector=selector,
                    on_change=self._on_change,
                    transform=slim_adopted,
                )
                self._running[key] = selector, informer, self._tasks.create_task(informer.run())

    def of(self, portfolio: Object) -> list[Object] | None:
        """The pods that ``portfolio`` selects; ``None`` until they are known."""
        found = self._running.get(key_of(portfolio))
        return found[1].cache.select() if found is not None and found[1].synced.is_set() else None


def selector_of(portfolio: Object) -> str | None:
    """The selector of a portfolio in mode ``Adopt``, as the API server takes it; ``None`` of any other."""
    serving = portfolio.get("spec", {}).get("serving") or {}
    labels = ((serving.get("adopt") or {}).get("selector") or {}).get("matchLabels") or {}
    if serving.get("mode") != "Adopt" or not labels:
        return None
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
