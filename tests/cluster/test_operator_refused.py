"""What the API server refuses to the operator: people read it on the portfolio, and it passes by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster_site import Operator, Site, wait_for
from control_plane import Refused


def deny_jobs(kubernetes: Any) -> Callable[[], None]:
    """A policy of the cluster that allows no Job in the namespace; what removes it."""
    name = f"no-jobs-{kubernetes.namespace}"
    group = "/apis/admissionregistration.k8s.io/v1"
    policy = {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": kubernetes.namespace}},
            },
            "validations": [{"expression": "false", "message": "Jobs need the blessing of the platform team"}],
        },
    }
    binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
    kubernetes.request("POST", f"{group}/validatingadmissionpolicies", policy)
    kubernetes.request("POST", f"{group}/validatingadmissionpolicybindings", binding)

    def is_in_force() -> bool:
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "probe"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}},
        }
        try:
            kubernetes.apply(job, dry_run=True)
        except Refused as refused:
            return "blessing" in str(refused)
        return False

    wait_for(is_in_force)

    def allow() -> None:
        for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
            kubernetes.request("DELETE", f"{group}/{plural}/{name}")

    return allow


def test_a_refused_job_is_told_and_made_later(namespace: Any, start: Callable[..., Operator]) -> None:
    allow = deny_jobs(namespace)
    try:
        start()
        site = Site(namespace, nodes=1)
        site.portfolio()

        def told() -> list[str]:
            events = namespace.request("GET", namespace.path("v1", "Event"))["items"]
            return [event["message"] for event in events if event["reason"] == "WriteRefused"]

        (message,) = wait_for(told)
        assert "blessing of the platform team" in message
        assert not site.jobs()
    finally:
        allow()
    wait_for(site.jobs)
    assert len(told()) == 1
