"""What a pod must carry to be adopted, and how it is said what it lacks."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgefolio_operator.cluster_state.adopted_pods import slim_adopted
from edgefolio_operator.endpoints.adoption_preflight import incompatible, missing_parts
from edgefolio_operator.status.informational_conditions import compatible


def pod(name: str = "inference-0") -> dict[str, Any]:
    """A pod as the adopt component leaves it."""
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("key", "models", "health")]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "models",
            "labels": {"app": "inference", "edgefolio.dev/endpoint": "digits"},
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {
            "nodeName": "edge-1",
            "initContainers": [
                {"name": "key", "command": ["sh", "-c", "make-key"], "volumeMounts": mounts[:1]},
                {"name": "agent", "restartPolicy": "Always", "volumeMounts": mounts, "env": [{"name": "X"}]},
            ],
            "containers": [
                {
                    "name": "inference",
                    "args": [
                        "tritonserver",
                        "--model-control-mode=explicit",
                        "--grpc-restricted-protocol=model-repository:key=secret",
                        "--http-restricted-api=model-repository:key=secret",
                    ],
                    "volumeMounts": mounts,
                }
            ],
            "volumes": [
                {"name": "key", "emptyDir": {"medium": "Memory"}},
                {"name": "models", "emptyDir": {}},
                {"name": "health", "emptyDir": {"medium": "Memory"}},
                {"name": "secret", "secret": {"secretName": "x"}},
            ],
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.0.0.1"},
    }


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """The pod with the value at ``path`` replaced, or taken away with ``to=None``."""
    found = pod()
    inner: Any = found
    for step in path[:-1]:
        inner = inner[step]
    if to is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return found


def test_a_pod_with_everything_lacks_nothing() -> None:
    assert missing_parts(pod()) == ()
    beside = pod()
    agent = beside["spec"]["initContainers"].pop()
    del agent["restartPolicy"]
    beside["spec"]["containers"].append(agent)
    assert missing_parts(beside) == (), "an agent beside Triton will do, too"


@pytest.mark.parametrize(
    ("lacking", "part"),
    [
        (changed("metadata", "labels", "edgefolio.dev/endpoint", to=None), "the label edgefolio.dev/endpoint"),
        (changed("spec", "initContainers", to=[]), "the container agent"),
        (
            changed("spec", "initContainers", 1, "restartPolicy", to=None),
            "restartPolicy Always at the init container agent",
        ),
        (changed("spec", "volumes", 0, to=None), "the volume key (the key of Triton's control interfaces)"),
        (changed("spec", "volumes", 1, to=None), "the volume models (verified variants)"),
        (changed("spec", "volumes", 2, to=None), "the volume health (how Triton is)"),
        (changed("spec", "volumes", 0, "emptyDir", to={}), "a volume key in memory (emptyDir.medium: Memory)"),
        (
            changed("spec", "containers", 0, "volumeMounts", 0, to=None),
            "the volume key mounted by both agent and Triton",
        ),
        (
            changed("spec", "initContainers", 1, "volumeMounts", 1, to=None),
            "the volume models mounted by both agent and Triton",
        ),
        (changed("spec", "containers", 0, "args", 1, to=None), "--model-control-mode=explicit at Triton"),
        (changed("spec", "containers", 0, "args", 2, to=None), "--grpc-restricted-protocol at Triton"),
        (
            changed("spec", "containers", 0, "args", 3, to=None),
            "--http-restricted-api or --allow-http=false at Triton",
        ),
    ],
)
def test_what_is_missing_is_named(lacking: dict[str, Any], part: str) -> None:
    assert missing_parts(lacking) == (part,)


def test_flags_are_judged_only_where_the_pod_shows_them() -> None:
    hidden = changed("spec", "containers", 0, "args", to=None)
    assert missing_parts(hidden) == ()
    script = changed("spec", "containers", 0, "args", to=None)
    script["spec"]["containers"][0]["command"] = ["sh", "-c", "exec tritonserver --model-control-mode explicit"]
    assert missing_parts(script) == (
        "--grpc-restricted-protocol at Triton",
        "--http-restricted-api or --allow-http=false at Triton",
    )


def test_without_http_nothing_of_it_need_be_closed() -> None:
    assert missing_parts(changed("spec", "containers", 0, "args", 3, to="--allow-http=false")) == ()


def test_slim_keeps_what_is_judged() -> None:
    for found in (pod(), changed("spec", "initContainers", to=[]), changed("spec", "containers", 0, "args", to=None)):
        before = copy.deepcopy(found)
        assert missing_parts(slim_adopted(found)) == missing_parts(found)
        assert found == before
    slim = slim_adopted(pod())
    assert "managedFields" not in slim["metadata"]
    assert "podIP" not in slim["status"]
    assert "env" not in str(slim)
    assert slim["spec"]["nodeName"] == "edge-1"


def test_the_condition_names_some_pods_and_the_remedy() -> None:
    bare = [{**pod(f"bare-{number}"), "spec": {"containers": [{"name": "triton"}]}} for number in range(7)]
    status, reason, message = compatible([pod(), *bare], mode="Adopt")
    assert (status, reason) == ("False", "PartsMissing")
    assert message.startswith("7 of 8 selected pods cannot be adopted: bare-0 lacks the container agent, ")
    assert "bare-4 lacks" in message
    assert "bare-5" not in message
    assert message.endswith("and 2 more. Add the kustomize component manifests/components/adopt to their workload.")
    assert len(message) <= 1024
    assert compatible([pod()], mode="Adopt") == ("True", "Adopted", "")
    assert compatible([], mode="Adopt")[:2] == ("Unknown", "NoPods")
    assert compatible(bare, mode="Managed")[:2] == ("True", "Managed")


def test_pods_that_have_ended_are_not_judged() -> None:
    bare = changed("spec", "initContainers", to=[])
    bare["status"]["phase"] = "Succeeded"
    ending = changed("spec", "initContainers", to=[])
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert incompatible([bare, ending, pod()]) == {}
