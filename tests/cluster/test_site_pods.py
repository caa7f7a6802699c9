"""The serving pod on real nodes: what starts, restarts and listens in it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bed_machine import container_id
from cluster_site import wait_for
from edge_portfolio import MODEL, SPEC
from edge_site import EdgeSite

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture
def changed(site: EdgeSite) -> Iterator[EdgeSite]:
    """The site, whose pods a test makes anew; afterwards those of the usual portfolio serve again."""
    yield site
    site.apply()
    wait_for(lambda: _rolled_out(site, http=False, secret="s3-read"), seconds=300)


def _rolled_out(site: EdgeSite, *, http: bool, secret: str) -> bool:
    """Whether every pod is of a DaemonSet with these settings, and Ready."""
    found = site.kubernetes.request("GET", site.kubernetes.path("apps/v1", "DaemonSet", "digits"))
    text, status = json.dumps(found["spec"]["template"]), found["status"]
    wanted = status["desiredNumberScheduled"]
    return bool(
        ("--allow-http=false" in text) is not http
        and f'"secretName": "{secret}"' in text
        and status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("updatedNumberScheduled") == status.get("numberReady") == wanted > 0
    )


def restarts(pod: dict[str, Any], container: str) -> int:
    statuses = (*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ()))
    return next(int(entry["restartCount"]) for entry in statuses if entry["name"] == container)


def test_a_server_that_ends_after_the_kubelet_was_restarted_comes_back(site: EdgeSite) -> None:
    """Kubernetes 1.35.0 to 1.35.3 would not start it, were the agent's start probed (kubernetes, PR 137146)."""
    before = site.pod_on("edge-1")
    assert not [entry for entry in before["spec"]["initContainers"] if "startupProbe" in entry]
    site.machine.restart("edge-1", "kubelet")
    time.sleep(15)
    site.kill("edge-1", "triton")
    wait_for(lambda: restarts(site.pod_on("edge-1"), "triton") > restarts(before, "triton"), seconds=90)
    site.settle_on(site.most_accurate, "edge-1", seconds=90)
    after = site.pod_on("edge-1")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert restarts(after, "agent") == restarts(before, "agent")
    assert container_id(after, "triton") != container_id(before, "triton")


def test_http_is_served_where_a_portfolio_asks_for_it(changed: EdgeSite) -> None:
    site = changed
    service = site.kubernetes.path("v1", "Service", "digits")
    assert {port["name"] for port in site.kubernetes.request("GET", service)["spec"]["ports"]} == {"grpc"}
    assert site.portfolio()["status"]["address"]["url"].startswith("grpc://")
    site.apply(serving={**SPEC["serving"], "http": "Enabled"})
    wait_for(lambda: _rolled_out(site, http=True, secret="s3-read"), seconds=300)
    site.wait_ready(seconds=120)
    address = site.pod_on("edge-1")["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}:8000/v2/models/{MODEL}", timeout=10) as answer:
        assert json.load(answer)["name"] == MODEL
    assert {port["name"] for port in site.kubernetes.request("GET", service)["spec"]["ports"]} == {"http", "grpc"}
    for path in (f"repository/models/{MODEL}/load", f"repository/models/{MODEL}/unload", "repository/index"):
        request = urllib.request.Request(f"http://{address}:8000/v2/{path}", data=b"{}", method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        with refused.value as answer:
            assert answer.code == 403


def test_a_secret_that_is_mended_is_read_without_a_restart(changed: EdgeSite) -> None:
    site = changed
    reading = {**SPEC["repository"], "readSecretRef": {"name": "s3-late"}}
    old = site.pod_on("edge-1")["metadata"]["uid"], site.pod_on("edge-2")["metadata"]["uid"]
    site.kubernetes.kubectl("delete", "secret", "s3-late", "--ignore-not-found")
    site.apply(repository=reading)
    fresh: list[tuple[str, dict[str, Any]]] = []

    def one_is_new() -> bool:
        for pod in site.pods("edgefolio.dev/endpoint"):
            if pod["metadata"]["uid"] not in old and not pod["metadata"].get("deletionTimestamp"):
                fresh[:] = [(pod["spec"].get("nodeName", ""), pod)]
        return bool(fresh and fresh[0][0])

    wait_for(one_is_new, seconds=120)
    node, pod = fresh[0]

    def synced() -> str:
        conditions = site.endpoints().get(node, {}).get("status", {}).get("conditions", ())
        return next((str(entry["reason"]) for entry in conditions if entry["type"] == "Synced"), "")

    wait_for(lambda: synced() == "Unreachable", seconds=120)
    keys = site.kubernetes.request("GET", site.kubernetes.path("v1", "Secret", "s3"))["data"]
    site._apply("v1", "Secret", "s3-late", data={**keys, "AWS_SECRET_ACCESS_KEY": "d3Jvbmc="})
    time.sleep(5)
    site._apply("v1", "Secret", "s3-late", data=keys)
    wait_for(lambda: synced() == "Verified", seconds=240)
    after = site.pod_on(node)
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    assert restarts(after, "agent") == 0


@pytest.fixture
def keeping(site: EdgeSite) -> Iterator[EdgeSite]:
    """Another namespace, whose portfolio keeps its models in a directory of the node."""
    folder = Path(tempfile.mkdtemp(prefix="edgefolio-kept-"))
    folder.chmod(0o755)
    for name in ("models", "state"):
        (folder / name).mkdir()
        os.chown(folder / name, 65532, 65532)
    other = EdgeSite(site.kubernetes, site.machine.run, namespace="keeping")
    other.prepare()
    allowed = "pod-security.kubernetes.io/enforce=privileged"
    other.kubernetes.kubectl("label", "namespace", "keeping", allowed, "--overwrite")
    managed = {**SPEC["serving"]["managed"], "storage": {"hostPath": str(folder)}}
    managed["nodeSelector"] = {"kubernetes.io/hostname": "edge-1"}
    follow = {"source": None, "data": None, "methods": None, "job": None, "rollout": None}
    other.apply(**follow, serving={**SPEC["serving"], "managed": managed})
    other.wait_ready(seconds=240)
    yield other
    other.kubernetes.within("default").kubectl("delete", "namespace", "keeping", "--timeout=120s")
    shutil.rmtree(folder)


def test_a_replaced_pod_serves_from_the_directory_of_its_node(keeping: EdgeSite) -> None:
    before = keeping.pod_on("edge-1")["metadata"]["uid"]
    served = keeping.active("edge-1")
    # Nobody reads the bucket any more.
    for secret in ("s3", "s3-read"):
        keeping._apply("v1", "Secret", secret, stringData={"AWS_SECRET_ACCESS_KEY": "wrong"})
    keeping.kubernetes.kubectl("delete", "pod", "--all", "--wait=false")
    wait_for(
        lambda: keeping.active("edge-1") == served and keeping.pod_on("edge-1")["metadata"]["uid"] != before,
        seconds=180,
    )
    keeping.wait_ready(seconds=120)
