"""Informers for pods to adopt: one per selector, started and stopped with it.

Such pods need not carry our label yet, so no fixed selector would match them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from edgefolio_operator.kube.cache import Change, ObjectCache
from edgefolio_operator.kube.client import Api
from edgefolio_operator.kube.informer import Informer
from edgefolio_operator.kube.objects import Object, part_of, well_formed
from edgefolio_operator.ownership import PortfolioKey, key_of


class AdoptedPods:
    """The pods that each portfolio in mode ``Adopt`` selects."""

    def __init__(self, api: Api, tasks: asyncio.TaskGroup, *, on_change: Callable[[PortfolioKey], None]) -> None:
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
                cache = ObjectCache(partial(self._changed, key), transform=slim_adopted)
                informer = Informer(
                    self._api, cache, api_version="v1", plural="pods", namespace=key[0], selector=selector
                )
                self._running[key] = selector, informer, self._tasks.create_task(informer.run())

    @property
    def unknown_namespaces(self) -> frozenset[str]:
        """Namespaces of informers that have not listed their pods yet."""
        return frozenset(key[0] for key, (_, informer, _) in self._running.items() if not informer.synced.is_set())

    def _changed(self, key: PortfolioKey, _: Change) -> None:
        self._on_change(key)

    def of(self, portfolio: Object) -> list[Object] | None:
        """The pods that ``portfolio`` selects; ``None`` until they are known."""
        found = self._running.get(key_of(portfolio))
        return found[1].cache.select() if found is not None and found[1].synced.is_set() else None


def selector_of(portfolio: Object) -> str | None:
    """The selector of a portfolio in mode ``Adopt``, as the API server takes it; ``None`` of any other."""
    serving = part_of(portfolio, "spec", "serving") or {}
    labels = part_of(serving, "adopt", "selector", "matchLabels")
    if part_of(serving, "mode") != "Adopt" or not isinstance(labels, Mapping) or not labels:
        return None
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def slim_adopted(pod: Object) -> Object:
    """Cache transform of a pod that may be adopted."""
    pod = well_formed(pod)
    spec = pod["spec"]
    metadata = {key: value for key, value in pod["metadata"].items() if key != "managedFields"}
    status = pod.get("status", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": spec.get("nodeName"),
            "initContainers": [_slim_container(entry) for entry in spec.get("initContainers") or ()],
            "containers": [_slim_container(entry) for entry in spec.get("containers") or ()],
            "volumes": [
                {key: entry[key] for key in ("name", "emptyDir") if key in entry} for entry in spec.get("volumes") or ()
            ],
        },
        "status": {key: status[key] for key in ("phase", "conditions") if key in status},
    }


def _slim_container(container: Object) -> Object:
    kept: Object = {key: container[key] for key in ("name", "restartPolicy", "command", "args") if key in container}
    mounts = [{"name": mount.get("name")} for mount in container.get("volumeMounts") or ()]
    return {**kept, "volumeMounts": mounts}
