"""Times that the definitions of the version before let through, on a real API server that has today's."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_site import wait_for
from control_plane import Refused, install_resources, retried

CASES = yaml.safe_load((Path(__file__).parent / "rules.yaml").read_text())
ENDPOINT = CASES["bases"][2]
#: Kubernetes' own check of date-time takes all of these.
ODD_TIMES = ["0000-01-01T00:00:00Z", "2026-01-01T00:00:00+99:99", "2026-01-01T00:00:00x5Z", "2026-01-01t00:00:00z"]


def endpoint(name: str, **spec: Any) -> dict[str, Any]:
    head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": {"name": name}}
    return {**head, "spec": {**ENDPOINT, **spec}}


def report(time: str) -> dict[str, Any]:
    decision = {"action": "Hold", "reason": "ObjectivesMet", "decidedBy": "Agent", "lastSwitchTime": time}
    return {"status": {"activeVariant": "dense", "decision": decision}}


def patched(namespace: Any, name: str, status: dict[str, Any]) -> None:
    namespace.kubectl("patch", "mep", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))


def is_refused(namespace: Any, name: str) -> bool:
    try:
        patched(namespace, name, report(ODD_TIMES[0]))
    except Refused as error:
        return "lastSwitchTime" in str(error)
    return False


@pytest.fixture
def older_definitions(namespace: Any) -> Iterator[Any]:
    """The definitions without patterns for times; those of today are put back at the end."""
    name = "modelendpoints.edgefolio.dev"
    crd = json.loads(namespace.within("default").kubectl("get", "crd", name, "-o", "json"))
    older = {key: copy.deepcopy(crd[key]) for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}}
    for version in older["spec"]["versions"]:
        _without_patterns(version["schema"])
    # As install_resources does: another manager's fields would be a conflict.
    namespace.within("default").kubectl("apply", "--server-side", "-f", "-", stdin=older)
    try:
        yield namespace
    finally:
        install_resources(namespace.within("default"))


def _without_patterns(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("format") == "date-time":
            node.pop("pattern", None)
        for inner in node.values():
            _without_patterns(inner)
    elif isinstance(node, list):
        for inner in node:
            _without_patterns(inner)


def test_a_stored_time_that_would_be_refused_now_keeps_nobody_from_writing(older_definitions: Any) -> None:
    namespace = older_definitions
    for number, time in enumerate(ODD_TIMES):
        name = f"old-{number}"
        namespace.apply(endpoint(name))
        retried(lambda name=name, time=time: patched(namespace, name, report(time)), seconds=30)
    install_resources(namespace.within("default"))
    namespace.apply(endpoint("new"))

    wait_for(lambda: is_refused(namespace, "new"), seconds=30)
    for number in range(len(ODD_TIMES)):
        name = f"old-{number}"
        # The operator gives another order; the agent reports anew, without the odd time and once with it.
        assert namespace.apply(endpoint(name, epoch=9))["spec"]["epoch"] == 9
        patched(namespace, name, {"status": {"observedEpoch": 9}})
        patched(namespace, name, report("2026-01-01T00:00:00Z"))
        with pytest.raises(AssertionError, match="lastSwitchTime"):
            patched(namespace, name, report(ODD_TIMES[number]))
