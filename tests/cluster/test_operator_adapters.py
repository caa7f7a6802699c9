"""Parts of the operator that speak to the API server, one by one, with a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml
from cluster_site import SPEC

from edgefolio.kubernetes.access import Access
from edgefolio_operator.cluster_state.adopted_pods import AdoptedPods
from edgefolio_operator.cluster_state.metrics_server import MetricsPoller
from edgefolio_operator.kube.client import Api


def with_api(kubeconfig: Path, work: Callable[[Api], Awaitable[None]]) -> None:
    async def running() -> None:
        async with Api(Access.of_kubeconfig(kubeconfig)) as api:
            await work(api)

    asyncio.run(running())


def portfolio(name: str, **fields: Any) -> dict[str, Any]:
    head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": name}}
    return {**head, "spec": {**SPEC, **fields}}


def test_what_metrics_s_absence_and_refusal_are_called(namespace: Any, tmp_path: Path) -> None:
    async def absent(api: Api) -> None:
        found = MetricsPoller(api, namespaces=(), reads_nodes=True, poll_seconds=15)
        assert not found.usage.asked
        await found.poll()
        assert found.usage.asked
        assert found.usage.problem == "The cluster does not serve metrics.k8s.io: install metrics-server."
        single = MetricsPoller(api, namespaces=(namespace.namespace,), reads_nodes=False, poll_seconds=15)
        assert single.usage.nodes is None

    with_api(namespace.kubeconfig, absent)
    namespace.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}})
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = namespace.request("POST", namespace.path("v1", "ServiceAccount", "nobody") + "/token", asked)
    document = yaml.safe_load(namespace.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": token["status"]["token"]}
    path = tmp_path / "nobody"
    path.write_text(yaml.safe_dump(document))

    async def refused(api: Api) -> None:
        found = MetricsPoller(api, namespaces=(), reads_nodes=True, poll_seconds=15)
        await found.poll()
        assert found.usage.problem.startswith("The operator may not read metrics.k8s.io")

    with_api(path, refused)


def test_informers_of_adopted_pods_come_and_go_with_their_portfolios(namespace: Any) -> None:
    def adopting(app: str) -> dict[str, Any]:
        found = portfolio("adopting")
        serving = {"modelName": "digits", "mode": "Adopt", "adopt": {"selector": {"matchLabels": {"app": app}}}}
        found["metadata"]["namespace"] = namespace.namespace
        return {**found, "spec": {**SPEC, "serving": serving}}

    async def work(api: Api) -> None:
        for app in ("one", "two"):
            labels = {"app": app}
            spec = {"containers": [{"name": "triton", "image": "x", "env": [{"name": "A", "value": "b"}]}]}
            namespace.apply(
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": app, "labels": labels}, "spec": spec}
            )
        async with asyncio.TaskGroup() as tasks:
            pods = AdoptedPods(api, tasks, on_change=lambda _: None)
            for app in ("one", "two"):
                entry = adopting(app)
                pods.follow([entry])
                assert pods.of(entry) is None, "nothing is concluded before the pods are known"
                await asyncio.wait_for(pods.informers[0].synced.wait(), timeout=10)
                found = pods.of(entry)
                assert found is not None
                assert [pod["metadata"]["name"] for pod in found] == [app]
                assert "env" not in found[0]["spec"]["containers"][0]
                assert len(pods.informers) == 1
            same = pods.informers[0]
            pods.follow([adopting("two")])
            assert pods.informers == [same]
            pods.follow([])
            assert pods.informers == []
        # The task group ends only when the informers' tasks have: none was left running.

    with_api(namespace.kubeconfig, lambda api: asyncio.wait_for(work(api), timeout=60))
