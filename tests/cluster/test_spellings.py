"""However users spell a portfolio, ``kubectl diff`` finds nothing after they applied it, and no pod rolls for it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from cluster_site import SPEC, Operator, Site, wait_for
from control_plane import Kubernetes

Object = dict[str, Any]

#: Fields of a specification, each spelled as people spell it.
SPELLINGS: dict[str, Object] = {
    "decimal megabytes": {"serving": {"managed": {"resources": {"limits": {"memory": "1000M"}}}}},
    "a thousand millis": {"serving": {"managed": {"resources": {"requests": {"cpu": "1000m"}}}}},
    "a fraction of a core": {"serving": {"managed": {"resources": {"requests": {"cpu": "0.30"}}}}},
    "a number of cores": {"serving": {"managed": {"resources": {"requests": {"cpu": "2.0"}}}}},
    "numbers": {"serving": {"managed": {"agentResources": {"requests": {"cpu": 1}, "limits": {"memory": 536870912}}}}},
    "half a gibibyte": {"serving": {"managed": {"resources": {"limits": {"memory": "0.5Gi"}}}}},
    "kibibytes": {"serving": {"managed": {"storage": {"sizeLimit": "2097152Ki"}}}},
    "a trailing zero": {"selection": {"maxAccuracyLossPoints": "0.30"}},
    "an objective": {"objectives": {"minAccuracyPercent": "85.00", "maxMemory": "256000k"}},
    "no resources": {"serving": {"managed": {"resources": {}, "agentResources": {}}}},
    "no limits": {"serving": {"managed": {"resources": {"limits": {}, "requests": {}}}}},
    "no node selector": {"serving": {"managed": {"nodeSelector": {}, "tolerations": [], "imagePullSecrets": []}}},
    "a toleration of everything": {"serving": {"managed": {"tolerations": [{"operator": "Exists"}]}}},
    "nothing managed": {"serving": {"managed": {}}},
    "nothing of a job": {"job": {"env": [], "volumes": [], "resources": {}, "nodeSelector": {}, "tolerations": []}},
    "an empty job": {"job": {}},
    "nothing said": {"job": {"env": None, "nodeSelector": None}, "objectiveOverrides": None, "switching": None},
    "no overrides": {"objectiveOverrides": []},
    "empty parts": {"objectives": {}, "switching": {}, "rollout": {}, "selection": {}, "profiling": {}},
    "defaults said": {"serving": {"mode": "Managed", "threads": 1}, "repository": {"reclaimPolicy": "Retain"}},
    "an empty method": {"methods": {"sparseTraining": {}, "oneShot": {}}},
}
BASE: Object = {key: value for key, value in SPEC.items() if key != "switching"}


def spelled(changes: Object) -> Object:
    """The portfolio with ``changes``, as a user's file holds it."""

    def merged(base: Object, change: Object) -> Object:
        found = copy.deepcopy(base)
        for key, value in change.items():
            old = found.get(key)
            found[key] = merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
        return found

    head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "digits"}}
    return {**head, "spec": merged(BASE, changes)}


def difference(kubernetes: Kubernetes, document: Object, *options: str) -> str:
    """What ``kubectl diff`` prints."""
    done = subprocess.run(
        [
            *(kubernetes.binaries / "kubectl", "--kubeconfig", kubernetes.kubeconfig),
            *("--namespace", kubernetes.namespace, "diff", *options, "-f", "-"),
        ],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.mark.parametrize("options", [(), ("--server-side",)], ids=["client-side", "server-side"])
@pytest.mark.parametrize("changes", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_what_was_applied_does_not_differ(namespace: Kubernetes, changes: Object, options: tuple[str, ...]) -> None:
    document = spelled(changes)
    assert difference(namespace, document, *options) != "", "it is not there yet"
    namespace.kubectl("apply", *options, "-f", "-", stdin=document)
    assert difference(namespace, document, *options) == ""
    # As the operator does within a second. Until then the status is the definition's, which the next write stores.
    seen = '{"status": {"observedGeneration": 1}}'
    namespace.kubectl("patch", "mpf", "digits", "--subresource=status", "--type=merge", "--patch", seen)
    path = namespace.path("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits")
    before = namespace.request("GET", path)["metadata"]
    said = namespace.kubectl("apply", *options, "-f", "-", stdin=document)
    assert "unchanged" in said or "serverside-applied" in said
    after = namespace.request("GET", path)["metadata"]
    assert (after["generation"], after["resourceVersion"]) == (before["generation"], before["resourceVersion"])


ALL_AT_ONCE: Object = {
    "managed": {
        "resources": {"requests": {"cpu": "0.30", "memory": "1000k"}, "limits": {"cpu": "2.0", "memory": "1000M"}},
        "agentResources": {"requests": {"cpu": 1}, "limits": {"cpu": "1000m", "memory": 536870912}},
        "storage": {"sizeLimit": "2097152Ki"},
        "nodeSelector": {},
        "tolerations": [{"operator": "Exists"}],
    }
}


def test_no_spelling_is_written_again_and_again(namespace: Kubernetes, start: Callable[..., Operator]) -> None:
    """Kubernetes stores 1000M as 1G and 0.30 as 300m: what the operator owns settles all the same."""
    start()
    site = Site(namespace)
    site.served(
        serving={"modelName": "digits", **ALL_AT_ONCE}, job={"env": [], "resources": {"limits": {"cpu": "2.0"}}}
    )
    owned = [("apps/v1", "DaemonSet"), ("v1", "Service"), ("edgefolio.dev/v1alpha1", "ModelPortfolio")]

    def versions() -> list[str]:
        found = [namespace.request("GET", namespace.path(version, kind, "digits")) for version, kind in owned]
        return [thing["metadata"]["resourceVersion"] for thing in found]

    path = namespace.path("apps/v1", "DaemonSet", "digits")
    (triton,) = wait_for(lambda: namespace.request("GET", path))["spec"]["template"]["spec"]["containers"]
    assert triton["resources"]["limits"] == {"cpu": "2", "memory": "1G"}
    assert triton["resources"]["requests"] == {"cpu": "300m", "memory": "1M"}
    before = versions()
    time.sleep(4)  # eight cycles
    assert versions() == before
    assert namespace.request("GET", path)["metadata"]["generation"] == 1
