"""The operator and what stands around an endpoint, on a real API server: nodes, neighbours, pods to adopt, people."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cluster_site import PUBLISHED, Operator, Site, wait_for

ADOPT = {"modelName": "digits", "mode": "Adopt", "adopt": {"selector": {"matchLabels": {"app": "inference"}}}}
SHARED = ("key", "models", "health")
MOUNTS = [{"name": name, "mountPath": f"/{name}"} for name in SHARED]


def adoptable(site: Site, name: str, *, complete: bool, app: str = "inference") -> None:
    """A pod of somebody else's, with the parts of the adopt component or without."""
    labels = {"app": app, **({"edgefolio.dev/endpoint": "digits"} if complete else {})}
    triton: dict[str, Any] = {"name": "inference", "image": "bed.local/pause:1"}
    spec: dict[str, Any] = {"nodeName": site.nodes[0], "containers": [triton]}
    if complete:
        triton["volumeMounts"] = MOUNTS
        agent = {"name": "agent", "image": "bed.local/pause:1", "restartPolicy": "Always", "volumeMounts": MOUNTS}
        spec["initContainers"] = [agent]
        spec["volumes"] = [{"name": name, "emptyDir": {"medium": "Memory"}} for name in SHARED]
    site.kubernetes.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    )
    site.ready("Pod", name)


def endpoints(site: Site) -> dict[str, str]:
    """Pod and portfolio of every endpoint."""
    items = site.kubernetes.request("GET", site.kubernetes.path("edgefolio.dev/v1alpha1", "ModelEndpoint"))["items"]
    return {entry["metadata"]["name"]: entry["spec"]["portfolioRef"]["name"] for entry in items}


def reasons_told(site: Site, kind: str) -> list[str]:
    items = site.kubernetes.request("GET", site.kubernetes.path("v1", "Event"))["items"]
    return [entry["reason"] for entry in items if entry["involvedObject"]["kind"] == kind]


def test_without_metrics_it_says_so_and_serves(namespace: Any, start: Callable[..., Operator]) -> None:
    operator = start()
    site = Site(namespace)
    site.served()
    assert site.condition("NodeMetricsAvailable") == ("False", "SourceUnavailable")
    assert site.message("NodeMetricsAvailable") == (
        "The cluster does not serve metrics.k8s.io: install metrics-server. Decisions rest on what the agents report."
    )
    # Said once, not every time it is asked.
    time.sleep(3)
    assert operator.log.read_text().count("does not serve metrics.k8s.io") == 1


def test_a_node_short_of_memory_is_helped_at_once(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace)
    site.served()
    site.press(site.nodes[0], "MemoryPressure")
    wait_for(lambda: site.target(0) == "small")
    assert site.reason(0) == "MemoryExceeded"
    site.report(0)
    wait_for(lambda: site.reason(0) == "InsufficientSwitchMemory")
    assert "the node reports MemoryPressure" in str(site.reason(0, "message"))
    order = site.endpoint(0)
    assert site.target(1) == "dense"
    site.press(site.nodes[0], "DiskPressure")
    wait_for(lambda: site.reason(0) == "NodeBusy")
    # Another reason is no other order: there is nothing that an agent would have to acknowledge.
    assert site.endpoint(0)["spec"] == order["spec"]
    assert site.endpoint(0)["metadata"]["generation"] == order["metadata"]["generation"]
    assert site.target(0) == "small"
    site.press(site.nodes[0])
    wait_for(lambda: site.target(0) == "dense")


def test_pods_are_looked_at_before_they_are_adopted(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace, nodes=1)
    site.portfolio(serving=ADOPT)
    wait_for(lambda: site.condition("Compatible") == ("Unknown", "NoPods"))
    # They carry no label of ours, and are seen nevertheless.
    adoptable(site, "bare", complete=False)
    wait_for(lambda: site.condition("Compatible") == ("False", "PartsMissing"))
    assert "bare lacks the label edgefolio.dev/endpoint, the container agent" in site.message("Compatible")
    assert site.message("Compatible").endswith(
        "Add the kustomize component manifests/components/adopt to their workload."
    )
    adoptable(site, "whole", complete=True)
    wait_for(lambda: endpoints(site) == {"whole": "digits"})
    namespace.kubectl("delete", "pod", "bare", "--grace-period=0", "--force")
    wait_for(lambda: site.condition("Compatible") == ("True", "Adopted"))
    assert "PartsMissing" in reasons_told(site, "ModelPortfolio")
    # Another selector: what it does not select is let go.
    elsewhere = {**ADOPT, "adopt": {"selector": {"matchLabels": {"app": "other"}}}}
    adoptable(site, "third", complete=True, app="other")
    site.portfolio(serving=elsewhere)
    wait_for(lambda: endpoints(site) == {"third": "digits"})


def test_an_endpoint_does_not_outlive_its_portfolio(namespace: Any, start: Callable[..., Operator]) -> None:
    operator = start()
    site = Site(namespace, nodes=1)
    site.portfolio(serving=ADOPT)
    adoptable(site, "whole", complete=True)
    wait_for(lambda: endpoints(site) == {"whole": "digits"})
    namespace.kubectl("delete", "mpf/digits")
    wait_for(lambda: endpoints(site) == {})
    # Nor does it while no operator looks.
    site.portfolio(serving=ADOPT)
    wait_for(lambda: endpoints(site) == {"whole": "digits"})
    assert operator.end() == 0
    namespace.kubectl("delete", "mpf/digits")
    start()
    wait_for(lambda: endpoints(site) == {})


def test_of_two_that_claim_a_pod_the_older_has_it(namespace: Any, start: Callable[..., Operator]) -> None:
    site = Site(namespace, nodes=1)
    site.portfolio(name="older", serving=ADOPT, repository={"uri": "s3://bucket/older"})
    time.sleep(1.1)  # Kubernetes tells ages by the second
    site.portfolio(name="a-younger", serving=ADOPT, repository={"uri": "s3://bucket/younger"})
    adoptable(site, "whole", complete=True)
    start()
    wait_for(lambda: endpoints(site) == {"whole": "older"})
    wait_for(lambda: site.condition("Conflicted", of="a-younger") == ("True", "PodClaimed"))
    winner = f"{namespace.namespace}/older"
    assert site.message("Conflicted", of="a-younger").startswith(f"{winner}, which is older, claims whole as well")
    assert site.condition("Conflicted", of="older") == ("False", "NoConflict")
    namespace.kubectl("delete", "mpf/older")
    wait_for(lambda: endpoints(site) == {"whole": "a-younger"})
    wait_for(lambda: site.condition("Conflicted", of="a-younger") == ("False", "NoConflict"))


def test_an_older_portfolio_takes_a_pod_over_when_its_selector_widens(
    namespace: Any, start: Callable[..., Operator]
) -> None:
    site = Site(namespace, nodes=1)
    narrow = {**ADOPT, "adopt": {"selector": {"matchLabels": {"app": "none"}}}}
    site.portfolio(name="older", serving=narrow, repository={"uri": "s3://bucket/older"})
    time.sleep(1.1)
    site.portfolio(name="younger", serving=ADOPT, repository={"uri": "s3://bucket/younger"})
    adoptable(site, "whole", complete=True)
    operator = start()
    wait_for(lambda: endpoints(site) == {"whole": "younger"})
    site.portfolio(name="older", serving=ADOPT, repository={"uri": "s3://bucket/older"})
    wait_for(lambda: endpoints(site) == {"whole": "older"})
    wait_for(lambda: site.condition("Conflicted", of="younger") == ("True", "PodClaimed"))
    assert "portfolioRef cannot be changed" not in operator.log.read_text()


def test_a_repository_has_one_maker(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace, nodes=1)
    site.portfolio()
    site.end_job(PUBLISHED)
    wait_for(lambda: site.get()["status"].get("publishingSince"))
    other = namespace.within(f"{namespace.namespace}-tenant")
    other.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other.namespace}})
    try:
        tenant = Site(other, nodes=0)
        tenant.portfolio(repository={"uri": "s3://bucket/portfolios/"})
        wait_for(lambda: tenant.condition("Stalled") == ("True", "RepositoryOwned"))
        assert tenant.message("Stalled").startswith("A ModelPortfolio of another namespace publishes the same model")
        assert namespace.namespace not in tenant.message("Stalled").replace(other.namespace, "")
        assert tenant.jobs() == []
        namespace.kubectl("delete", "mpf/digits")
        wait_for(tenant.jobs)
        wait_for(lambda: tenant.condition("Stalled")[0] == "False")
    finally:
        other.request("DELETE", other.path("edgefolio.dev/v1alpha1", "ModelPortfolio"))


def test_describe_tells_the_story_of_an_endpoint(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace, nodes=1)
    site.served()
    site.report(0, slowdown=4.0)
    wait_for(lambda: site.target(0) == "small")
    namespace.kubectl("annotate", "pod", f"digits-{site.nodes[0]}", "edgefolio.dev/pin-variant=huge")
    wait_for(lambda: "UnknownVariant" in reasons_told(site, "ModelEndpoint"))
    told = namespace.kubectl("describe", "mep", f"digits-{site.nodes[0]}").partition("Events:")[2]
    for part in ("Initial", "dense is to serve", "LatencyViolated", "dense -> small", "UnknownVariant", "'huge'"):
        assert part in told
    assert "UnknownVariant" in reasons_told(site, "ModelPortfolio")


def test_the_tables_show_what_people_ask(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace, nodes=1)
    site.served()

    def table(what: str) -> dict[str, str]:
        """The only row of a wide table by the columns' names."""
        head, row = namespace.kubectl("get", what, "-o", "wide").splitlines()
        starts = [index for index, letter in enumerate(head) if letter != " " and head[index - 1 : index + 1] != "LAST "
                  and (index == 0 or head[index - 2 : index] == "  ")]  # fmt: skip
        ends = [*starts[1:], None]
        return {head[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}

    portfolio = table("mpf")
    assert list(portfolio) == [
        "NAME", "READY", "REVISION", "VARIANTS", "AVAILABLE", "MEETING", "POLICY", "LAST SWITCH", "REASON",
        "STAGE", "PROGRESS", "AGE",
    ]  # fmt: skip
    assert (portfolio["READY"], portfolio["MEETING"], portfolio["POLICY"]) == ("True", "1/1", "Auto")
    assert portfolio["REASON"] == "Serving"
    endpoint = table("mep")
    assert list(endpoint) == ["NAME", "NODE", "ACTIVE", "TARGET", "P95", "OBJECTIVE", "REASON", "AGENT", "AGE"]
    assert (endpoint["NODE"], endpoint["ACTIVE"], endpoint["TARGET"]) == (site.nodes[0], "dense", "dense")
    assert endpoint["OBJECTIVE"] == "20"
    assert endpoint["REASON"] == site.reason(0)


def test_metrics_are_told_and_taken_back(namespace: Any, start: Callable[..., Operator]) -> None:
    operator = start()
    site = Site(namespace, nodes=1)
    site.served()
    site.report(0, slowdown=4.0)
    wait_for(lambda: site.target(0) == "small")
    site.report(0)

    def told() -> str:
        return operator.read(operator.metrics_port, "/metrics")

    where = f'namespace="{namespace.namespace}"'
    wait_for(lambda: 'variant="small"' in told())
    found = told()
    for series in (
        'edgefolio_decisions_total{action="Switch",reason="LatencyViolated"} 1.0',
        'edgefolio_decisions_total{action="Hold",reason="NodeBusy"} 0.0',
        f'edgefolio_portfolio_condition{{{where},portfolio="digits",status="True",type="Ready"}} 1.0',
        "edgefolio_reconcile_duration_seconds_count",
        "edgefolio_objective_violated{",
        "edgefolio_endpoint_variant_info{",
        'edgefolio_mirror_heard_timestamp_seconds{collection="/api/v1/nodes"}',
        'edgefolio_api_writes_total{kind="ModelEndpoint"}',
    ):
        assert series in found, series
    wait_for(lambda: "edgefolio_switch_duration_seconds_count 2.0" in told())
    namespace.kubectl("delete", "mpf/digits")
    wait_for(lambda: where not in told())


def test_it_lets_the_lease_go_when_it_is_stopped(namespace: Any, start: Callable[..., Operator]) -> None:
    operator = start()
    lease = namespace.path("coordination.k8s.io/v1", "Lease", "edgefolio-operator")
    wait_for(lambda: namespace.request("GET", lease)["spec"].get("holderIdentity") == "operator-a")
    assert operator.end() == 0
    assert not namespace.request("GET", lease)["spec"].get("holderIdentity")
    # The next one need not wait until it runs out.
    began = time.monotonic()
    start("operator-b")
    wait_for(lambda: namespace.request("GET", lease)["spec"].get("holderIdentity") == "operator-b")
    assert time.monotonic() - began < 12


def test_a_status_that_somebody_changed_is_set_right(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace, nodes=1)
    site.portfolio()
    site.end_job(PUBLISHED)
    wait_for(lambda: site.get()["status"].get("currentRevision") == 1)
    patch = {"status": {"currentRevision": 7}}
    namespace.request(
        "PATCH",
        namespace.path("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits") + "/status?fieldManager=somebody",
        patch,
        content_type="application/merge-patch+json",
    )
    wait_for(lambda: site.get()["status"].get("currentRevision") == 1)
