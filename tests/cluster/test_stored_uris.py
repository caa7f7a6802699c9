"""Rules of URIs that came later: what was stored before them can still be changed, reported on and deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import Refused, retried

from edgefolio.crd import definitions

MAKING = yaml.safe_load((Path(__file__).parent / "rules.yaml").read_text())["bases"][1]
SECRET = "https://me:password@data.example.com/a.npz"


def without_rules_of_strings(schema: dict[str, Any]) -> None:
    if schema.get("type") == "string":
        schema.pop("x-kubernetes-validations", None)
    for inner in [*schema.get("properties", {}).values(), schema.get("items")]:
        if inner:
            without_rules_of_strings(inner)


def test_a_stored_uri_that_would_be_refused_bars_no_write(api_server: Any, namespace: Any) -> None:
    # A group of its own leaves others alone.
    group = f"{namespace.namespace}.example.com"
    now = definitions.model_portfolio()
    now["metadata"]["name"] = names = f"modelportfolios.{group}"
    now["spec"]["group"] = group
    before = json.loads(json.dumps(now))
    without_rules_of_strings(before["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    head = {"apiVersion": f"{group}/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "digits"}}
    spec = {
        **MAKING,
        "data": {"trainingURI": SECRET, "testURI": "s3://bucket/test.npz"},
        "repository": {"uri": "s3://KEY:SECRET@bucket/../portfolios"},
    }

    def define(definition: dict[str, Any]) -> None:
        api_server.kubectl("apply", "--server-side", "-f", "-", stdin=definition)

    def is_strict() -> None:
        with pytest.raises(Refused, match="it holds a user or a password"):
            namespace.apply({**head, "metadata": {"name": "new"}, "spec": spec}, dry_run=True)

    try:
        define(before)
        api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{names}")
        retried(lambda: namespace.apply({**head, "spec": spec}), seconds=30)
        define(now)
        for _ in range(60):  # the server takes a changed definition in a moment of its own
            try:
                is_strict()
                break
            except pytest.fail.Exception:
                continue
        is_strict()
        # Other fields, beside it and above it, labels, status and the finalizer.
        assert namespace.apply({**head, "spec": {**spec, "seed": 5}})["spec"]["seed"] == 5
        changed = {**spec, "data": {**spec["data"], "testPercent": 20}}
        changed["repository"] = {**spec["repository"], "checkIntervalSeconds": 60}
        assert namespace.apply({**head, "spec": changed})["spec"]["repository"]["checkIntervalSeconds"] == 60
        for patch in ({"metadata": {"labels": {"a": "b"}}}, {"metadata": {"finalizers": ["example.com/a"]}}):
            namespace.kubectl("patch", names, "digits", "--type=merge", "-p", json.dumps(patch))
        reported = namespace.apply({**head, "status": {"observedGeneration": 1}}, subresource="status")
        assert reported["status"]["observedGeneration"] == 1
        # The value itself can be mended, and not be made worse.
        with pytest.raises(Refused, match="it holds a user or a password"):
            namespace.apply({**head, "spec": {**changed, "data": {"trainingURI": SECRET + "?version=2"}}})
        namespace.apply({**head, "spec": {**changed, "data": {"trainingURI": "s3://bucket/a.npz"}}})
        namespace.kubectl("patch", names, "digits", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
        namespace.kubectl("delete", names, "digits", "--timeout=30s")
    finally:
        api_server.kubectl("delete", "crd", names, "--ignore-not-found", "--wait=false")
