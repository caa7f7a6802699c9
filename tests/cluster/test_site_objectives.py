"""What people ask for, at every level: applied, changed, malformed, removed."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_site import wait_for
from edge_site import EdgeSite

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
LATENCY = "slo.edgefolio.dev/latency-p95-ms"
ACCURACY = "slo.edgefolio.dev/min-accuracy-percent"


def asked(site: EdgeSite, node: str) -> dict[str, Any]:
    """The objectives that the endpoint on ``node`` was given."""
    return dict(site.endpoints()[node]["spec"].get("objectives", {}))


def told(site: EdgeSite, node: str) -> str:
    """The line of ``kubectl get mep`` for ``node``."""
    lines = site.kubernetes.kubectl("get", "mep", "-o", "wide").splitlines()
    return next(line for line in lines if node in line.split())


@pytest.fixture
def tight(site: EdgeSite) -> int:
    """A latency that the fastest variant meets and the most accurate one does not."""
    first, last = (float(site.variants()[index]["p95Milliseconds"]) for index in (0, -1))
    assert last > 2 * first, "the variants are too alike for this test"
    return max(1, round((1.6 * first + last) / 2.6))


def test_annotations_of_pod_node_and_namespace(site: EdgeSite, tight: int) -> None:
    client = site.start_client("edge-1")
    annotate = site.kubernetes.kubectl
    # The namespace's is a default, the node's is nearer, the pod's the nearest.
    annotate("annotate", "namespace", site.namespace, f"{LATENCY}={tight}")
    wait_for(lambda: asked(site, "edge-1").get("latencyP95Milliseconds") == tight)
    wait_for(lambda: site.active("edge-1") != site.most_accurate, seconds=60)
    assert str(tight) in told(site, "edge-1").split()

    annotate("annotate", "node", "edge-1", f"{LATENCY}=10000")
    site.settle_on(site.most_accurate, "edge-1", seconds=120)
    assert asked(site, "edge-2")["latencyP95Milliseconds"] == tight

    pod = site.pod_on("edge-1")["metadata"]["name"]
    annotate("annotate", "pod", pod, f"{LATENCY}={tight}")
    wait_for(lambda: site.active("edge-1") != site.most_accurate, seconds=60)

    # What cannot be read is said, and the next level's value is used.
    annotate("annotate", "--overwrite", "pod", pod, f"{LATENCY}=soon")
    wait_for(lambda: site.condition("ObjectivesAccepted") == ("False", "ObjectiveIgnored"))
    assert "soon" in site.message("ObjectivesAccepted")
    site.settle_on(site.most_accurate, "edge-1", seconds=120)
    annotate("annotate", "pod", pod, f"{LATENCY}-")
    wait_for(lambda: site.condition("ObjectivesAccepted")[0] == "True")

    annotate("annotate", "node", "edge-1", f"{LATENCY}-")
    wait_for(lambda: asked(site, "edge-1").get("latencyP95Milliseconds") == tight)
    annotate("annotate", "namespace", site.namespace, f"{LATENCY}-")
    wait_for(lambda: "latencyP95Milliseconds" not in asked(site, "edge-1"))
    site.settle_on(site.most_accurate, "edge-1", "edge-2", seconds=120)
    assert not [request for request in client.stop() if request.error]


def test_overrides_by_node_labels(site: EdgeSite, tight: int) -> None:
    override = {
        "name": "second",
        "nodeSelector": {"kubernetes.io/hostname": "edge-2"},
        "objectives": {"latencyP95Milliseconds": tight},
    }
    client = site.start_client("edge-2")
    site.apply(objectiveOverrides=[override])
    wait_for(lambda: site.active("edge-2") != site.most_accurate, seconds=60)
    assert site.active("edge-1") == site.most_accurate
    described = site.kubernetes.kubectl("describe", "mep", site.pod_on("edge-2")["metadata"]["name"])
    assert "LatencyViolated" in described
    site.apply()
    site.settle_on(site.most_accurate, "edge-2", seconds=120)
    assert not [request for request in client.stop() if request.error]


def test_pinned_and_paused_by_annotation(site: EdgeSite) -> None:
    pod = site.pod_on("edge-1")["metadata"]["name"]
    site.kubernetes.kubectl("annotate", "pod", pod, f"edgefolio.dev/pin-variant={site.fastest}")
    site.settle_on(site.fastest, "edge-1")
    assert site.endpoints()["edge-1"]["spec"]["pinned"] is True
    assert site.active("edge-2") == site.most_accurate
    site.kubernetes.kubectl("annotate", "pod", pod, "edgefolio.dev/paused=true")
    site.kubernetes.kubectl("annotate", "pod", pod, "edgefolio.dev/pin-variant-")
    wait_for(lambda: not site.endpoints()["edge-1"]["spec"].get("pinned"))
    wait_for(lambda: site.endpoints()["edge-1"]["spec"]["switching"]["policy"] == "Paused")
    assert site.active("edge-1") == site.fastest
    site.kubernetes.kubectl("annotate", "pod", pod, "edgefolio.dev/paused-")
    site.settle_on(site.most_accurate, "edge-1", seconds=120)


def test_memory_that_gets_short(site: EdgeSite) -> None:
    """Less memory than the served variant takes: a smaller one at once, and back when there is room."""
    bytes_of = {variant["name"]: int(variant["memoryPeakBytes"]) for variant in site.variants()}
    between = (bytes_of[site.fastest] + bytes_of[site.most_accurate]) // 2
    assert bytes_of[site.fastest] < between < bytes_of[site.most_accurate]
    client = site.start_client("edge-1")
    site.kubernetes.kubectl("annotate", "node", "edge-1", f"slo.edgefolio.dev/max-memory={between}")
    wait_for(lambda: bytes_of.get(site.active("edge-1") or "", between) < between, seconds=60)
    assert site.active("edge-2") == site.most_accurate
    assert any(event["reason"] == "MemoryExceeded" for event in site.events())
    site.kubernetes.kubectl("annotate", "node", "edge-1", "slo.edgefolio.dev/max-memory-")
    site.settle_on(site.most_accurate, "edge-1", seconds=120)
    assert not [request for request in client.stop() if request.error]


def test_node_metrics_are_read_and_their_age_is_told(site: EdgeSite) -> None:
    """The real metrics-server, and what is said when its samples are old."""
    wait_for(lambda: site.condition("NodeMetricsAvailable") == ("True", "MetricsFresh"), seconds=60)
    with site.machine.frozen("metrics-server"):
        wait_for(lambda: site.condition("NodeMetricsAvailable")[0] != "True", seconds=180)
        assert site.condition("Ready")[0] == "True"
        assert site.active("edge-1") == site.most_accurate
    wait_for(lambda: site.condition("NodeMetricsAvailable") == ("True", "MetricsFresh"), seconds=90)
