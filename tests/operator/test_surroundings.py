"""Cycles of a portfolio whose surroundings speak: busy and short nodes, neighbours that claim the same, people."""

from __future__ import annotations

from typing import Any

import pytest
from reconciled_site import Site, published

from edgefolio_operator.cluster_state.resource_usage import Usage

ADOPT = {"modelName": "digits", "mode": "Adopt", "adopt": {"selector": {"matchLabels": {"app": "inference"}}}}


def settled(site: Site, seconds: int, *, slow: str | None = None) -> list[str]:
    """So many seconds of traffic, at the speed of the profile but on the node ``slow``; the events that were told."""
    told = []
    for _ in range(seconds):
        for name in site.endpoints:
            node = name.removeprefix("digits-")
            site.report(node, slowdown=4.0 if node == slow else 1.0, met=node != slow)
        plan = site.cycle()
        told += [f"{event.endpoint or 'portfolio'} {event.reason}" for event in plan.events]
    return told


def reason(site: Site, node: str = "edge-1") -> str:
    return str(site.reason(node))


# Nodes.


def test_a_busy_node_keeps_the_smaller_variant_until_others_leave_it() -> None:
    site = Site().served()
    settled(site, 5, slow="edge-1")
    assert site.targets()["edge-1"] == "small"
    for _ in range(4):
        site.measure(cores=3.9)
        settled(site, 20)
    assert site.targets() == {"edge-1": "small", "edge-2": "dense"}
    assert reason(site) == "NodeBusy"
    assert "others use 95 % of the node's processors (at most 85 %)" in str(site.reason("edge-1", "message"))
    assert site.condition("NodeMetricsAvailable") == ("True", "MetricsFresh")
    site.measure(cores=1.0)
    settled(site, 3)
    assert site.targets()["edge-1"] == "dense"


def test_stale_metrics_hold_nobody() -> None:
    site = Site().served()
    settled(site, 5, slow="edge-1")
    site.measure(cores=3.9)
    settled(site, 100)
    assert site.condition("NodeMetricsAvailable") == ("False", "MetricsStale")
    assert site.message("NodeMetricsAvailable") == (
        "There is no sample of the last 60 s of edge-1, edge-2. Decisions rest on what the agents report."
    )
    assert site.targets()["edge-1"] == "dense"
    assert site.condition("Ready") == ("True", "Serving")


def test_a_node_short_of_memory_gets_the_smallest_and_the_others_stay() -> None:
    site = Site().served()
    assert site.nodes is not None
    site.nodes["edge-1"]["status"]["conditions"].append({"type": "MemoryPressure", "status": "True"})
    told = settled(site, 3)
    assert site.targets() == {"edge-1": "small", "edge-2": "dense"}
    assert "digits-edge-1 MemoryExceeded" in told
    assert settled(site, 60).count("digits-edge-1 MoreAccurateFits") == 0
    assert site.targets()["edge-1"] == "small"
    site.nodes["edge-1"]["status"]["conditions"].pop()
    settled(site, 60)
    assert site.targets()["edge-1"] == "dense"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(), ("Unknown", "NotAskedYet")),
        (Usage(asked=True), ("False", "MetricsStale")),
        (Usage(asked=True, problem="The cluster does not serve metrics.k8s.io: install metrics-server."),
         ("False", "SourceUnavailable")),
        (Usage(nodes=None, asked=True), ("False", "SourceUnavailable")),
    ],
)  # fmt: skip
def test_metrics_that_are_not_there_are_said_to_be_so_and_change_nothing_else(
    usage: Usage, expected: tuple[str, str]
) -> None:
    site = Site()
    site.usage = usage
    site.served()
    assert site.condition("NodeMetricsAvailable") == expected
    assert site.condition("Ready") == ("True", "Serving")
    settled(site, 5, slow="edge-1")
    assert site.targets() == {"edge-1": "small", "edge-2": "dense"}
    if usage.problem:
        assert site.message("NodeMetricsAvailable").startswith(usage.problem)


def test_a_problem_of_the_source_is_no_problem_while_its_samples_are_fresh() -> None:
    site = Site().served()
    site.measure(cores=1)
    site.usage = Usage(nodes=site.usage.nodes, pods=site.usage.pods, problem="metrics.k8s.io hiccups.", asked=True)
    site.cycle()
    assert site.condition("NodeMetricsAvailable") == ("True", "MetricsFresh")


def test_an_operator_of_single_namespaces_says_what_it_cannot_see() -> None:
    override = {"name": "slow", "nodeSelector": {"class": "slow"}, "objectives": {"latencyP95Milliseconds": 50}}
    site = Site(objectiveOverrides=[override])
    site.nodes, site.usage = None, Usage(nodes=None, asked=True)
    site.served()
    assert site.condition("Ready") == ("True", "Serving")
    assert site.condition("NodeMetricsAvailable") == ("False", "SourceUnavailable")
    assert "reads neither nodes nor namespaces" in site.message("NodeMetricsAvailable")
    assert site.condition("ObjectivesAccepted") == ("False", "ObjectiveIgnored")
    assert "SourceUnavailable" in site.message("ObjectivesAccepted")


# Conflicts.


def test_a_pod_that_an_older_portfolio_has_is_left_to_it() -> None:
    site = Site()
    site.lost_pods = {"digits-edge-1": ("models", "older")}
    site.served()
    assert set(site.endpoints) == {"digits-edge-2"}
    assert site.condition("Conflicted") == ("True", "PodClaimed")
    assert site.message("Conflicted").startswith("models/older, which is older, claims digits-edge-1 as well")
    assert site.condition("Ready") == ("True", "Serving")


def test_an_endpoint_is_given_up_to_an_older_portfolio_and_taken_back() -> None:
    site = Site().served()
    assert site.condition("Conflicted") == ("False", "NoConflict")
    site.lost_pods = {"digits-edge-1": ("models", "older")}
    plan = site.cycle()
    assert plan.delete_endpoints == ("digits-edge-1",)
    assert [event.reason for event in plan.events] == ["PodClaimed"]
    assert site.cycle().delete_endpoints == ()
    site.lost_pods = {}
    site.cycle()
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}


def test_a_repository_of_an_older_portfolio_is_not_made_into() -> None:
    site = Site()
    site.repository_owner = ("other", "older")
    plan = site.cycle()
    assert not [document for document in plan.apply if document["kind"] in ("Job", "ConfigMap")]
    assert site.condition("Stalled") == ("True", "RepositoryOwned")
    assert site.condition("Ready") == ("False", "RepositoryOwned")
    assert site.message("Stalled").startswith("A ModelPortfolio of another namespace publishes the same model")
    site.repository_owner = ("models", "older")
    site.cycle()
    assert site.message("Stalled").startswith("ModelPortfolio older publishes the same model")
    site.repository_owner = None
    plan = site.cycle()
    assert [document["kind"] for document in plan.apply] == ["ConfigMap", "Job"]
    assert site.condition("Stalled")[0] == "False"


def test_one_that_loses_its_repository_ends_its_job_and_serves_on() -> None:
    site = Site().served()
    site.edit(seed=1)
    site.cycle()
    assert site.condition("Making")[0] == "True"
    site.repository_owner = ("other", "older")
    plan = site.cycle()
    assert plan.delete_jobs
    assert site.condition("Stalled") == ("True", "RepositoryOwned")
    assert site.condition("Making")[0] == "False"
    assert site.condition("Ready") == ("True", "Serving")
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}
    assert site.cycle().delete_jobs == ()


# Adoption.


def adopted(site: Site) -> None:
    """Give every pod what the component brings."""
    shared = ("key", "models", "health")
    mounts = [{"name": name} for name in shared]
    for pod in site.pods:
        pod["metadata"]["labels"] = {"app": "inference", "edgefolio.dev/endpoint": "digits"}
        pod["spec"] |= {
            "initContainers": [{"name": "agent", "restartPolicy": "Always", "volumeMounts": mounts}],
            "containers": [{"name": "triton", "volumeMounts": mounts}],
            "volumes": [{"name": name, "emptyDir": {"medium": "Memory"}} for name in shared],
        }


def test_pods_that_lack_parts_get_no_endpoint_and_the_remedy_is_said() -> None:
    site = Site(serving=ADOPT)
    adopted(site)
    site.pods[0]["spec"]["initContainers"] = []
    plan = site.cycle()
    assert set(site.endpoints) == {"digits-edge-2"}
    assert site.condition("Compatible") == ("False", "PartsMissing")
    assert "digits-edge-1 lacks the container agent" in site.message("Compatible")
    assert "manifests/components/adopt" in site.message("Compatible")
    assert "PartsMissing" in [event.reason for event in plan.events]
    adopted(site)
    plan = site.cycle()
    assert set(site.endpoints) == {"digits-edge-1", "digits-edge-2"}
    assert site.condition("Compatible") == ("True", "Adopted")


def test_what_was_adopted_stays_so_when_a_newer_operator_asks_for_more() -> None:
    site = Site(serving=ADOPT)
    adopted(site)
    site.served()
    del site.pods[0]["metadata"]["labels"]["edgefolio.dev/endpoint"]
    plan = site.cycle()
    assert plan.delete_endpoints == ()
    assert site.condition("Compatible")[0] == "False"
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}


def test_a_pod_that_is_no_longer_selected_loses_its_endpoint() -> None:
    site = Site(serving=ADOPT)
    adopted(site)
    site.served()
    released = site.pods.pop(0)
    plan = site.cycle()
    assert plan.delete_endpoints == ("digits-edge-1",)
    # One that is ending keeps it: its agent still serves clients.
    released["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    site.pods[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert site.cycle().delete_endpoints == ()


# What people are told.


def test_an_endpoint_tells_its_story_once() -> None:
    site = Site().served()
    told = settled(site, 8, slow="edge-1")
    assert told == ["digits-edge-1 LatencyViolated", "portfolio LatencyViolated"]
    told = settled(site, 40)
    assert told == ["digits-edge-1 MoreAccurateFits", "portfolio MoreAccurateFits"]
    site.pods[0]["metadata"]["annotations"]["edgefolio.dev/paused"] = "true"
    assert settled(site, 5) == ["digits-edge-1 Paused"]
    del site.pods[0]["metadata"]["annotations"]["edgefolio.dev/paused"]
    assert settled(site, 5) == []


def test_silence_is_told_once_and_as_a_warning() -> None:
    site = Site(nodes=1).served()
    events = [event for _ in range(5) for event in site.cycle(40).events]
    assert [(event.endpoint, event.reason, event.warning) for event in events] == [
        ("digits-edge-1", "StaleMetrics", True)
    ]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("edgefolio.dev/pin-variant", "huge", "UnknownVariant"),
        ("edgefolio.dev/paused", "perhaps", "MalformedPause"),
        ("slo.edgefolio.dev/latency-p95-ms", "soon", "MalformedObjective"),
    ],
)
def test_an_annotation_that_cannot_be_read_is_told_once_and_again_when_it_changes(
    key: str, value: str, told: str
) -> None:
    site = Site().served()
    annotations = site.pods[0]["metadata"]["annotations"]
    annotations[key] = value
    events = [event for _ in range(5) for event in site.cycle().events if event.reason == told]
    assert [(event.endpoint, event.warning) for event in events] == [(None, True), ("digits-edge-1", True)]
    assert site.condition("ObjectivesAccepted") == ("False", "ObjectiveIgnored")
    annotations[key] = f"{value}er"
    assert [event.reason for event in site.cycle().events].count(told) == 2
    del annotations[key]
    site.cycle()
    assert site.condition("ObjectivesAccepted")[0] == "True"


def test_a_restarted_operator_tells_nothing_anew() -> None:
    site = Site().served()
    site.pods[0]["metadata"]["annotations"]["edgefolio.dev/paused"] = "perhaps"
    site.lost_pods = {"digits-edge-2": ("models", "older")}
    settled(site, 3)
    site.states = {}
    assert settled(site, 3) == []


def test_many_issues_are_not_told_again_and_again() -> None:
    """The condition's message is cut to size; what does not stand in it is not news for ever."""
    site = Site(nodes=30)
    for number, pod in enumerate(site.pods):
        pod["metadata"]["annotations"]["slo.edgefolio.dev/max-memory"] = f"much-{number}"
    site.cycle()
    site.end_job(published(1))
    events: list[Any] = []
    for _ in range(5):
        events = [event for event in site.cycle().events if event.reason == "MalformedObjective"]
    assert events == []
