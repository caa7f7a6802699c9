"""The objects that the operator writes are those of the version before: an upgrade rolls no pod and reruns no Job.

``unchanged_objects.json`` was written by that version. Whoever changes a pod on purpose changes it there, too, and
says in ``docs/cluster/upgrade.md`` what is restarted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.resources.daemonset import build_access, build_daemon_set, build_service
from edgefolio_operator.resources.pruning_job import Images, build_job, build_specification
from edgefolio_operator.resources.repository_jobs import build_check_job, build_reclaim_job
from edgefolio_operator.revisions.pruning_job import pieces_to_make

GOLDEN = Path(__file__).parent / "unchanged_objects.json"
IMAGES = Images(pruner="example.com/pruner:1", agent="example.com/agent:1", triton="example.com/triton:1")
OWNER = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "name": "digits", "uid": "u"}
KEY = "0123456789abcdef"
SPECIFICATIONS: dict[str, dict[str, Any]] = {
    "made, defaults": {
        "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
        "data": {"trainingURI": "builtin:digits"},
        "methods": {"sparseTraining": {}},
        "repository": {"uri": "s3://bucket/portfolios"},
        "serving": {"modelName": "digits"},
    },
    "made in pieces, claims": {
        "source": {
            "architecture": {"library": "edgefolio", "name": "cnn"},
            "weightsURI": "pvc://weights/cnn.safetensors",
        },
        "data": {"trainingURI": "pvc://data/train.npz"},
        "methods": {"sparseTraining": {}, "oneShot": {"macsPercent": [50, 25]}},
        "repository": {"uri": "pvc://models/portfolios", "secretRef": {"name": "s3"}, "reclaimPolicy": "Delete"},
        "serving": {
            "modelName": "digits",
            "threads": 2,
            "managed": {
                "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}},
                "agentResources": {"limits": {"memory": "256Mi"}},
                "storage": {"sizeLimit": "512Mi", "maxBytesPerSecond": 1000000},
                "nodeSelector": {"class": "edge"},
            },
        },
        "job": {
            "parallelism": 2,
            "workDirectory": {"uri": "s3://bucket/work"},
            "volumes": [{"claimName": "data", "mountPath": "/data", "readOnly": True}],
            "env": [{"name": "A", "value": "1"}],
        },
    },
    "followed, claim": {
        "repository": {"uri": "pvc://models", "manifestDigest": "0" * 64},
        "serving": {"modelName": "digits", "managed": {"image": "own/triton:2", "agentImage": "own/agent:2"}},
    },
    "made, claim for work": {
        "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
        "data": {"trainingURI": "builtin:digits"},
        "methods": {"sparseTraining": {}},
        "repository": {"uri": "pvc://work/models"},
        "serving": {"modelName": "digits"},
        "job": {"workDirectory": {"claimName": "work"}, "activeDeadlineSeconds": 3600},
    },
}


def objects(specification: dict[str, Any]) -> list[dict[str, Any]]:
    """All that the operator writes for it."""
    head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio"}
    metadata = {"name": "digits", "namespace": "models"}
    portfolio = ModelPortfolio.model_validate({**head, "metadata": metadata, "spec": specification})
    made = [
        build_specification(portfolio, key=KEY, owner=OWNER),
        build_job(portfolio, key=KEY, owner=OWNER, images=IMAGES, request="monday"),
    ]
    if pieces := pieces_to_make(portfolio.spec):
        made.append(build_job(portfolio, key=KEY, owner=OWNER, images=IMAGES, pieces=pieces))
    return [
        build_daemon_set(portfolio, owner=OWNER, images=IMAGES),
        *build_access(portfolio),
        build_service(portfolio, owner=OWNER, server_version=ServerVersion()),
        build_check_job(portfolio, name="digits-check-1", key=KEY, owner=OWNER, images=IMAGES),
        build_reclaim_job(portfolio, uid="u", images=IMAGES),
        *(made if portfolio.spec.source is not None else ()),
    ]


def written(name: str) -> str:
    """The objects as text: the order of fields counts."""
    return json.dumps(objects(SPECIFICATIONS[name]), indent=1)


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_the_objects_are_those_of_the_version_before(name: str) -> None:
    before = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    assert written(name) == json.dumps(before, indent=1)
