"""Cycles of one portfolio: from the first sight over the first revision to switches, and what is written."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from reconciled_site import NOW, Site, published

from edgefolio.contract.job_report import FailureReport
from edgefolio.specification.conditions import time_text
from edgefolio_operator.kube.server_version import ServerVersion


def serving(**spec: Any) -> Site:
    """A site that serves its first revision."""
    return Site(**spec).served()


def test_from_nothing_to_serving() -> None:
    site = Site()
    first = site.cycle()
    workload = ["Service", "ServiceAccount", "RoleBinding", "DaemonSet"]
    making = ["ConfigMap", "Job"]
    assert [document["kind"] for document in first.apply] == [*workload, *making]
    assert site.condition("Ready") == ("False", "Making")
    # Pods are the portfolio's through its DaemonSet.
    assert [document["kind"] for document in site.cycle().apply] == ["ModelEndpoint", "ModelEndpoint"]
    assert site.targets() == {"edge-1": None, "edge-2": None}
    assert site.condition("Reconciling") == ("True", "FirstMaking")
    site.end_job(published(1))
    second = site.cycle()
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}
    assert [event.reason for event in second.events if event.endpoint is None] == ["Published", "RolloutCompleted"]
    assert [(event.endpoint, event.reason) for event in second.events if event.endpoint is not None] == [
        ("digits-edge-1", "Initial"),
        ("digits-edge-2", "Initial"),
    ]
    assert site.condition("Ready") == ("False", "EndpointsUnavailable")
    for node in site.nodes:
        site.report(node)
    site.cycle()
    assert site.condition("Ready") == ("True", "Serving")
    assert site.condition("Reconciling") == ("False", "Settled")
    status = site.portfolio["status"]
    assert (status["currentRevision"], status["variantCount"], status["endpoints"]["summary"]) == (1, 2, "2/2")
    assert status["endpoints"]["byVariant"] == [{"variant": "dense", "revision": 1, "count": 2}]


def test_a_settled_site_writes_nothing() -> None:
    site = serving()
    before = copy.deepcopy(site.portfolio["status"])
    for _ in range(5):
        plan = site.cycle()
        assert (plan.apply, plan.delete_jobs, plan.events) == ((), (), ())
    assert site.portfolio["status"] == before


def test_contention_moves_one_endpoint_and_back_and_is_no_reconciliation() -> None:
    site = serving()
    for _ in range(6):
        site.report("edge-1", slowdown=4.0, met=False)
        site.report("edge-2")
        site.cycle()
        assert site.condition("Reconciling")[0] == "False"
    assert site.targets() == {"edge-1": "small", "edge-2": "dense"}
    assert site.portfolio["metadata"]["generation"] == 1
    for _ in range(40):
        site.report("edge-1")
        site.report("edge-2")
        site.cycle()
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}


def test_pods_are_made_anew_only_when_their_settings_change() -> None:
    site = serving()
    assert site.daemon_set is not None
    before = site.daemon_set
    site.edit(objectives={"latencyP95Milliseconds": 30}, revisionHistoryLimit=5)
    site.cycle()
    assert site.daemon_set is before
    site.edit(serving={"modelName": "digits", "managed": {"resources": {"limits": {"memory": "1Gi"}}}})
    plan = site.cycle()
    assert "DaemonSet" in [document["kind"] for document in plan.apply]
    site.edit(serving={"modelName": "digits", "mode": "Adopt", "adopt": {"selector": {"matchLabels": {"a": "b"}}}})
    site.cycle()
    assert site.daemon_set is None
    assert "address" not in site.portfolio["status"]


def test_the_service_is_written_when_it_is_not_as_it_should_be_and_pods_stay() -> None:
    site = serving()
    assert site.service is not None
    assert site.service["spec"]["internalTrafficPolicy"] == "Local"
    site.server_version = ServerVersion(major=1, minor=35)
    assert [document["kind"] for document in site.cycle().apply] == ["Service"]
    assert site.service["spec"]["trafficDistribution"] == "PreferSameNode"
    assert "internalTrafficPolicy" not in site.service["spec"]
    assert site.cycle().apply == ()
    site.service = None
    assert [document["kind"] for document in site.cycle().apply] == ["Service"]


def test_silence_holds() -> None:
    site = serving()
    site.report("edge-1", slowdown=4.0, met=False)
    for _ in range(30):
        site.cycle(60)
    assert site.targets()["edge-1"] == "dense"
    assert site.reason("edge-1") == "StaleMetrics"


def test_an_operator_that_restarts_goes_on() -> None:
    site = serving()
    for _ in range(3):
        site.report("edge-1", slowdown=4.0, met=False)
        site.states = {}
        plan = site.cycle()
        assert [document["kind"] for document in plan.apply] in ([], ["ModelEndpoint"])
    site.report("edge-1", slowdown=4.0, met=False)
    for _ in range(5):
        site.report("edge-1", slowdown=4.0, met=False)
        site.cycle()
    assert site.targets()["edge-1"] == "small"


def test_annotations_apply_and_go() -> None:
    site = serving()
    annotations = site.nodes["edge-1"]["metadata"]["annotations"]
    annotations["slo.edgefolio.dev/latency-p95-ms"] = "5"
    for _ in range(6):
        for node in site.nodes:
            site.report(node)
        site.cycle()
    assert site.targets() == {"edge-1": "small", "edge-2": "dense"}
    annotations["slo.edgefolio.dev/latency-p95-ms"] = "quick"
    for _ in range(60):
        for node in site.nodes:
            site.report(node)
        site.cycle()
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}
    assert site.condition("ObjectivesAccepted") == ("False", "ObjectiveIgnored")
    del annotations["slo.edgefolio.dev/latency-p95-ms"]
    site.cycle()
    assert site.condition("ObjectivesAccepted")[0] == "True"


def test_pin_and_pause() -> None:
    site = serving()
    site.pods[0]["metadata"]["annotations"]["edgefolio.dev/pin-variant"] = "small"
    site.nodes["edge-2"]["metadata"]["annotations"]["edgefolio.dev/paused"] = "true"
    for _ in range(6):
        site.report("edge-1")
        site.report("edge-2", slowdown=4.0, met=False)
        site.cycle()
    assert site.targets() == {"edge-1": "small", "edge-2": "dense"}
    assert site.endpoints["digits-edge-1"]["spec"]["pinned"] is True
    assert site.reason("edge-2") == "Paused"
    site.pods[0]["metadata"]["annotations"]["edgefolio.dev/pin-variant"] = "absent"
    site.cycle()
    assert site.condition("ObjectivesAccepted") == ("False", "ObjectiveIgnored")


def test_bad_input_stalls_with_the_command_line_s_words_and_a_changed_spec_mends_it() -> None:
    site = Site()
    site.cycle()
    bad = FailureReport(kind="BadInput", field="spec.data.trainingURI", problem="it is empty.", remedy="Fill it.")
    site.end_job(bad)
    site.cycle()
    assert site.condition("Stalled") == ("True", "BadInput")
    assert site.portfolio["status"]["lastFailure"]["message"] == bad.one_line()
    site.jobs.clear()
    site.cycle()
    assert site.condition("Stalled") == ("True", "BadInput"), "also after the Job is gone"
    site.edit(data={"trainingURI": "builtin:fashion-mnist"})
    plan = site.cycle()
    assert [document["kind"] for document in plan.apply] == ["ConfigMap", "Job"]
    assert site.condition("Stalled")[0] == "False"


def test_a_bad_remake_leaves_the_old_revision_serving() -> None:
    site = serving()
    site.edit(seed=1)
    site.cycle()
    assert site.condition("Making")[0] == "True"
    assert site.condition("Reconciling")[0] == "False"
    site.end_job(FailureReport(kind="BadInput", field="spec.seed", problem="it is bad.", remedy="Change it."))
    site.cycle()
    assert site.condition("Ready") == ("True", "Serving")
    assert site.condition("Stalled")[0] == "True"
    assert site.condition("Degraded") == ("True", "MakingFailed")
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}


def test_a_new_revision_rolls_out_in_waves() -> None:
    site = serving(nodes=4, rollout={"maxConcurrentPercent": 50, "analysisSeconds": 10})
    site.edit(seed=1)
    site.cycle()
    site.end_job(published(2))
    revisions = []
    for _ in range(30):
        site.cycle()
        revisions.append([entry["spec"]["revision"]["number"] for entry in site.endpoints.values()])
        for node in site.nodes:
            site.report(node)
    assert revisions[0] == [2, 2, 1, 1]
    assert revisions[-1] == [2, 2, 2, 2]
    assert site.condition("Reconciling")[0] == "False"
    assert site.portfolio["status"]["rollout"]["phase"] == "Completed"


def test_a_pinned_revision_that_is_not_kept_stalls() -> None:
    site = serving()
    site.edit(pinnedRevision=7)
    site.cycle()
    assert site.condition("Stalled") == ("True", "UnknownRevision")
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}


def test_an_agent_that_acted_while_it_was_cut_off_is_not_sent_back() -> None:
    site = serving()
    site.report("edge-1", slowdown=1.0)
    status = site.endpoints["digits-edge-1"]["status"]
    status["activeVariant"] = "small"
    status["residentVariants"] = ["small"]
    status["observation"]["traffic"]["meanComputeMilliseconds"] = "2"
    status["decision"] |= {"decidedBy": "Agent", "lastSwitchTime": time_text(site.now)}
    site.cycle()
    assert site.targets()["edge-1"] == "small"


def test_a_lost_node_is_not_counted_and_a_broken_pod_is() -> None:
    site = serving(nodes=3)
    site.nodes["edge-1"]["status"]["conditions"][0]["status"] = "Unknown"
    site.cycle()
    assert site.portfolio["status"]["endpoints"]["summary"] == "2/2"
    assert site.condition("Ready") == ("True", "Serving")
    site.pods[1]["status"]["conditions"][0]["status"] = "False"
    site.pods[1]["metadata"]["creationTimestamp"] = time_text(NOW - 3600)
    site.cycle()
    assert site.condition("Ready") == ("False", "EndpointsUnavailable")


@pytest.mark.parametrize(
    "spec", [{"seed": "x"}, {"serving": {"modelName": "A B"}}, {"objectives": {"maxMemory": "1 MB"}}]
)
def test_a_spec_that_only_the_models_can_judge_stalls(spec: dict[str, Any]) -> None:
    site = serving()
    site.edit(**spec)
    plan = site.cycle()
    assert (plan.apply, plan.delete_jobs) == ((), ())
    assert site.condition("Stalled") == ("True", "InvalidSpec")
