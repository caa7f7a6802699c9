"""The operator on a real API server. The tests play kubelet, Job controller and agents; nothing in between is faked."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

from cluster_site import PUBLISHED, Operator, Site, wait_for

from edgefolio.contract.job_report import FailureReport


def reasons_of_events(namespace: Any) -> set[str]:
    """Reasons of all Events in the test's namespace."""
    return {entry["reason"] for entry in namespace.request("GET", namespace.path("v1", "Event"))["items"]}


def test_from_a_portfolio_to_switching_endpoints(namespace: Any, start: Callable[..., Operator]) -> None:
    operator = start()
    site = Site(namespace)
    site.portfolio()
    wait_for(lambda: site.condition("Ready") == ("False", "Making"))
    (job,) = wait_for(site.jobs)
    assert job["metadata"]["ownerReferences"][0]["name"] == "digits"
    site.end_job(PUBLISHED)
    for number in range(2):
        wait_for(lambda number=number: site.target(number) == "dense")
        site.report(number)
    wait_for(lambda: site.condition("Ready") == ("True", "Serving"))
    namespace.kubectl("wait", "--for=condition=Ready", "mpf/digits", "--timeout=5s")
    row = namespace.kubectl("get", "mpf").splitlines()[1].split()
    assert row[:6] == ["digits", "True", "1", "2", "2", "2/2"]

    # The portfolio's generation and the user's fields stay as they are, whatever is switched.
    before = site.get()
    site.report(0, slowdown=4.0)
    wait_for(lambda: site.target(0) == "small")
    assert site.reason(0) in ("LatencyViolated", "ObjectivesMet", "DeadBand", "CalmTooShort")
    assert site.target(1) == "dense"
    site.report(0)
    wait_for(lambda: site.target(0) == "dense")
    after = site.get()
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
    assert not after["metadata"].get("finalizers")
    assert not any("kopf" in key for key in after["metadata"].get("annotations", {}))
    # An Event is written after what it tells of.
    wait_for(lambda: {"Published", "LatencyViolated", "MoreAccurateFits"} <= reasons_of_events(namespace))

    health = json.loads(operator.read(operator.probe_port, "/healthz"))
    assert health["cycle"] < 10
    metrics = operator.read(operator.metrics_port, "/metrics")
    assert 'edgefolio_decisions_total{action="Switch",reason="LatencyViolated"} 1.0' in metrics
    assert "edgefolio_leading 1.0" in metrics
    assert operator.end() == 0
    lines = [json.loads(line) for line in operator.log.read_text().splitlines()]
    assert not [line for line in lines if line["level"] in ("error", "critical") or "exception" in line]


def test_a_settled_site_is_left_alone(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace)
    site.served()
    before = [site.get()["metadata"]["resourceVersion"], *(site.endpoint(n)["metadata"] for n in range(2))]
    time.sleep(4)  # eight cycles
    after = [site.get()["metadata"]["resourceVersion"], *(site.endpoint(n)["metadata"] for n in range(2))]
    assert after == before


def test_annotations_on_pod_node_and_namespace(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace)
    site.served()
    key = "slo.edgefolio.dev/latency-p95-ms"
    namespace.kubectl("annotate", "node", site.nodes[0], f"{key}=5")
    wait_for(lambda: site.target(0) == "small")
    assert site.endpoint(0)["spec"]["objectives"]["latencyP95Milliseconds"] == 5
    site.report(0)
    namespace.kubectl("annotate", "pod", f"digits-{site.nodes[0]}", f"{key}=30")
    wait_for(lambda: site.endpoint(0)["spec"]["objectives"]["latencyP95Milliseconds"] == 30)
    wait_for(lambda: site.target(0) == "dense")
    namespace.kubectl("annotate", "--overwrite", "pod", f"digits-{site.nodes[0]}", f"{key}=soon")
    wait_for(lambda: site.condition("ObjectivesAccepted") == ("False", "ObjectiveIgnored"))
    assert site.endpoint(0)["spec"]["objectives"]["latencyP95Milliseconds"] == 5
    namespace.kubectl("annotate", "pod", f"digits-{site.nodes[0]}", f"{key}-")
    wait_for(lambda: site.condition("ObjectivesAccepted")[0] == "True")
    namespace.kubectl("annotate", "namespace", namespace.namespace, "slo.edgefolio.dev/max-memory=512Mi")
    wait_for(lambda: site.endpoint(1)["spec"]["objectives"].get("maxMemory") == "512Mi")


def test_bad_input_stalls_with_the_user_s_words(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace, nodes=1)
    site.portfolio()
    bad = FailureReport(kind="BadInput", field="spec.data.trainingURI", problem="it is empty.", remedy="Fill it.")
    site.end_job(bad)
    wait_for(lambda: site.condition("Stalled") == ("True", "BadInput"))
    (message,) = (entry["message"] for entry in site.get()["status"]["conditions"] if entry["type"] == "Stalled")
    assert message == bad.one_line()
    site.portfolio(seed=2)
    wait_for(lambda: site.condition("Stalled")[0] == "False")
    wait_for(lambda: any(job["metadata"]["name"] != "" for job in site.jobs()))


def test_a_killed_operator_goes_on(namespace: Any, start: Callable[..., Operator]) -> None:
    operator = start()
    site = Site(namespace)
    site.served()
    operator.send(signal.SIGKILL)
    site.report(0, slowdown=4.0)
    start()  # the same container again: the lease is its own
    wait_for(lambda: site.target(0) == "small")
    assert site.target(1) == "dense"
    assert len(site.jobs()) == 1


def test_only_one_operator_acts(namespace: Any, start: Callable[..., Operator]) -> None:
    old = start("operator-a")
    site = Site(namespace)
    site.served()
    epoch = site.endpoint(0)["spec"]["epoch"]
    old.send(signal.SIGSTOP)
    start("operator-b")
    wait_for(lambda: site.endpoint(0)["spec"]["epoch"] > epoch, seconds=60)
    old.send(signal.SIGCONT)
    site.report(0, slowdown=4.0)
    wait_for(lambda: site.target(0) == "small")
    time.sleep(2)
    assert site.endpoint(0)["spec"]["epoch"] == epoch + 1
    wait_for(lambda: "edgefolio_leading 0.0" in old.read(old.metrics_port, "/metrics"))
