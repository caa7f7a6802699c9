"""An operator whose role is of the version before: what it may not watch, it does without."""

from __future__ import annotations

from typing import Any

from fake_api import FakeApi
from test_controller import Cluster, run, until

from edgefolio_operator.kube.client import ApiError


class OldRights(FakeApi):
    """An API server that lets nobody list accounts, bindings or Events."""

    async def _request(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        may_not = ("serviceaccounts", "rolebindings", "events")
        if method == "GET" and path.rpartition("/")[2] in may_not:
            raise ApiError(403, "Forbidden", f"{path} is forbidden")
        return await super()._request(method, path, body, **options)


def test_it_makes_what_it_may_not_watch_and_stays_alive() -> None:
    async def work() -> None:
        cluster.add("one")
        await until(lambda: cluster.told("one") == 20)
        made = {place[1] for place in cluster.api.objects}
        assert {"serviceaccounts", "rolebindings", "daemonsets"} <= made
        titles = cluster.controller.pulse.informers
        assert not [title for title in titles if "serviceaccounts" in title or "rolebindings" in title]
        cluster.api.written.clear()
        await until(lambda: len(cluster.api.written) > 0 or cluster.controller.pulse.cycle > 1)
        assert not [write for write in cluster.api.written if "serviceaccounts" in write], "not each time"

    cluster = Cluster(OldRights())
    run(cluster, work)
