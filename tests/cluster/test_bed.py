"""The test bed itself: what the other tests take for granted."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "restricted"},
    "spec": {
        "restartPolicy": "Never",
        "nodeName": "edge-2",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "main",
                "image": "bed.local/python:3.11",
                "imagePullPolicy": "Never",
                "command": [
                    "python3",
                    "-c",
                    "import os, socket; print(os.getuid(), socket.gethostbyname('s3.kube-system'))",
                ],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    },
}


@pytest.mark.slow
def test_three_nodes_run_restricted_pods(cluster: Any) -> None:
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    assert [node["metadata"]["name"] for node in nodes] == ["edge-1", "edge-2", "edge-3"]
    cluster.kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted")
    cluster.apply(POD)
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/restricted", "--timeout=60s")
    user, address = cluster.kubectl("logs", "restricted").split()
    assert user == "65532"
    assert address.startswith("10.96.")


@pytest.mark.slow
def test_object_storage_and_metrics_answer(cluster: Any) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen("http://10.240.0.1:7070/", timeout=10)
    with refused.value as answer:
        assert b"AccessDenied" in answer.read()
    cluster.kubectl("wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=60s")
