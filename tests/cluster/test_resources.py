"""The resources on a real API server: defaults, bounds, every rule accepted and refused, columns, explanation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import Refused, retried
from kstatus import compute

from edgefolio.crd import definitions

CASES = yaml.safe_load((Path(__file__).parent / "rules.yaml").read_text())
FOLLOWING, MAKING, ENDPOINT = CASES["bases"]
KINDS = ("ModelPortfolio", "ModelEndpoint")


def resource(kind: str, spec: dict[str, Any], *, name: str = "digits") -> dict[str, Any]:
    return {"apiVersion": "edgefolio.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def cases(outcome: str) -> list[Any]:
    return [
        pytest.param(kind, case.get("before"), spec, case["message"], id=f"{kind}: {case['message']} ({number})")
        for kind in KINDS
        for case in CASES[kind]
        for number, spec in enumerate(case[outcome])
    ]


@pytest.mark.parametrize(("kind", "before", "spec", "message"), cases("accepted"))
def test_accepted(namespace: Any, kind: str, before: Any, spec: dict[str, Any], message: str) -> None:
    if before:
        namespace.apply(resource(kind, before))
    assert namespace.apply(resource(kind, spec))["spec"]


@pytest.mark.parametrize(("kind", "before", "spec", "message"), cases("refused"))
def test_refused(namespace: Any, kind: str, before: Any, spec: dict[str, Any], message: str) -> None:
    if before:
        namespace.apply(resource(kind, before))
    with pytest.raises(AssertionError) as caught:
        namespace.apply(resource(kind, spec))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        pytest.param("ModelPortfolio", {"seed": "1"}, ".spec.seed: expected numeric", id="type"),
        pytest.param("ModelPortfolio", {"sede": 1}, ".spec.sede: field not declared in schema", id="unknown field"),
        pytest.param("ModelPortfolio", {"pinnedRevision": -1}, "should be greater than or equal to 0", id="minimum"),
        pytest.param("ModelPortfolio", {"serving": {"modelName": "a" * 64}}, "may not be more than 63", id="length"),
        pytest.param(
            "ModelPortfolio", {"objectives": {"maxMemory": "64 MB"}}, "spec.objectives.maxMemory", id="quantity"
        ),
        pytest.param(
            "ModelPortfolio",
            {"objectives": {"minAccuracyPercent": 88.5}},
            ".spec.objectives.minAccuracyPercent: expected string",
            id="float",
        ),
        pytest.param(
            "ModelPortfolio",
            {"source": {"architecture": {"library": "timm", "name": "a", "options": {"deep": {"er": 1}}}}},
            "must have at most 0 items",
            id="option that is a map",
        ),
        pytest.param(
            "ModelPortfolio",
            {
                "objectiveOverrides": [
                    {"name": "a", "nodeSelector": {"x": "1"}, "objectives": {}},
                    {"name": "a", "nodeSelector": {"x": "2"}, "objectives": {}},
                ]
            },
            "duplicate entries for key",
            id="name twice",
        ),
        pytest.param(
            "ModelEndpoint", {"revision": {"number": 1, "manifestDigest": "short"}}, "should match", id="digest"
        ),
    ],
)
def test_bad_values_are_refused(namespace: Any, kind: str, change: dict[str, Any], said: str) -> None:
    base = {"ModelPortfolio": MAKING, "ModelEndpoint": ENDPOINT}[kind]
    with pytest.raises(AssertionError) as caught:
        namespace.apply(resource(kind, {**base, **change}))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["a.b", "9digits", "a" * 49, "ends-"])
def test_names_that_do_not_fit_into_other_names_are_refused(namespace: Any, name: str) -> None:
    with pytest.raises(AssertionError, match=r"metadata\.name|Invalid value"):
        namespace.apply(resource("ModelPortfolio", MAKING, name=name))


def test_defaults_are_those_of_the_command_line(namespace: Any) -> None:
    from edgefolio.specification import ModelPortfolio

    stored = namespace.apply(resource("ModelPortfolio", MAKING))
    written = ModelPortfolio.model_validate(resource("ModelPortfolio", MAKING)).spec
    from_cluster = ModelPortfolio.model_validate({**stored, "metadata": {"name": "digits"}}).spec
    assert from_cluster == written
    assert stored["spec"]["switching"]["downAfterSeconds"] == written.switching.down_after_seconds
    # A level of objectives must show what it leaves to the next one.
    assert "networkLatencyMilliseconds" not in stored["spec"]["objectives"]


def test_options_take_strings_integers_and_booleans(namespace: Any) -> None:
    options = {"in_chans": 1, "act_layer": "relu", "zero_init_last": False}
    source = {"architecture": {"library": "timm", "name": "resnet18", "options": options}}
    stored = namespace.apply(resource("ModelPortfolio", {**MAKING, "source": source}))
    assert stored["spec"]["source"]["architecture"]["options"] == options


def test_a_portfolio_that_nobody_has_seen_is_in_progress_to_flux(namespace: Any) -> None:
    stored = namespace.apply(resource("ModelPortfolio", MAKING))
    assert not stored["status"]["conditions"]
    assert compute(stored) == "InProgress"


def test_status_is_a_subresource_and_fills_the_columns(namespace: Any) -> None:
    namespace.apply(resource("ModelPortfolio", MAKING))
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Serving",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {
        "conditions": [condition],
        "currentRevision": 3,
        "variantCount": 5,
        "endpoints": {"summary": "2/3", "total": 3, "available": 3, "meetingObjectives": 2},
    }
    namespace.kubectl(
        "patch", "mpf", "digits", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )
    header, row = namespace.kubectl("get", "mpf").splitlines()
    assert header.split() == ["NAME", "READY", "REVISION", "VARIANTS", "AVAILABLE", "MEETING", "AGE"]
    assert row.split()[:6] == ["digits", "True", "3", "5", "3", "2/3"]
    wide = namespace.kubectl("get", "mpf", "-o", "wide").splitlines()[0]
    assert all(column in wide for column in ("POLICY", "LAST SWITCH", "REASON"))
    # Applying the spec again leaves the status alone and changes nothing.
    again = namespace.apply(resource("ModelPortfolio", MAKING))
    assert again["status"]["currentRevision"] == 3
    assert again["metadata"]["generation"] == 1


def test_a_status_that_breaks_its_bounds_is_refused(namespace: Any) -> None:
    namespace.apply(resource("ModelEndpoint", ENDPOINT))
    too_many = {"status": {"residentVariants": [f"v{number}" for number in range(9)]}}
    with pytest.raises(AssertionError, match="must have at most 8 items"):
        namespace.kubectl("patch", "mep", "digits", "--subresource=status", "--type=merge", "-p", json.dumps(too_many))


def test_endpoint_columns_and_category(namespace: Any) -> None:
    namespace.apply(resource("ModelEndpoint", ENDPOINT))
    header = namespace.kubectl("get", "mep").splitlines()[0]
    assert header.split() == ["NAME", "NODE", "ACTIVE", "TARGET", "P95", "OBJECTIVE", "REASON", "AGE"]
    assert "modelendpoint.edgefolio.dev/digits" in namespace.kubectl("get", "edgefolio", "-o", "name")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "mpf.spec.switching.downAfterSeconds",
            "The longest time that a violation must last before a faster variant is taken.",
        ),
        ("mpf.spec.methods.oneShot", "one variant per entry"),
        ("mep.spec.epoch", "Fencing epoch of the leader: agents refuse orders with a lower one."),
        ("mep.status.observation.validUntil", "The agent reports again by then"),
    ],
)
def test_explain_reads_well(api_server: Any, path: str, said: str) -> None:
    text = " ".join(api_server.kubectl("explain", path).split())
    assert said in text
    assert "``" not in text


def test_what_was_stored_field_by_field_is_written_whole_after_an_upgrade(api_server: Any, namespace: Any) -> None:
    # As the definition was before its spec and status were each one writer's; a group of its own leaves others alone.
    group = f"{namespace.namespace}.example.com"
    now = definitions.model_endpoint()
    now["metadata"]["name"] = f"modelendpoints.{group}"
    now["spec"]["group"] = group
    before = json.loads(json.dumps(now))
    parts = before["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for part in ("spec", "status"):
        assert parts[part].pop("x-kubernetes-map-type") == "atomic"
    head = {"apiVersion": f"{group}/v1alpha1", "kind": "ModelEndpoint", "metadata": {"name": "digits"}}
    revision = {"number": 1, "manifestDigest": "0" * 64}
    names = f"modelendpoints.{group}"
    try:
        _define(api_server, before)
        api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{names}")
        spec = {**ENDPOINT, "revision": revision, "targetVariant": "a"}
        retried(lambda: namespace.apply({**head, "spec": spec}, manager="operator"), seconds=30)
        report = {"observedEpoch": 7, "activeVariant": "a"}
        namespace.apply({**head, "status": report}, subresource="status", manager="agent")
        stored = json.loads(namespace.kubectl("get", names, "digits", "-o", "json", "--show-managed-fields"))
        assert len(_owned(stored)["spec"]) > 5
        _define(api_server, now)
        # The server takes the changed definition in a moment of its own: until then it writes as before.
        told = {**spec, "targetVariant": "b"}
        retried(lambda: _is_whole(namespace.apply({**head, "spec": told}, manager="operator")), seconds=30)
        stored = namespace.apply({**head, "status": {"activeVariant": "b"}}, subresource="status", manager="agent")
        assert _owned(stored) == {"spec": {}, "status": {}}
        # What a writer leaves out is gone, as before; what the other one wrote stays.
        assert (stored["status"]["activeVariant"], stored["status"]["observedEpoch"]) == ("b", 0)
        assert (stored["spec"]["targetVariant"], stored["spec"]["epoch"]) == ("b", 7)
        with pytest.raises(AssertionError, match="a newer operator has written this endpoint"):
            namespace.apply({**head, "spec": {**told, "epoch": 6}}, manager="operator")
        # Others change one field by a patch; who applies one field says the whole spec, and is refused.
        namespace.kubectl("patch", names, "digits", "--type=merge", "-p", '{"spec": {"targetVariant": "c"}}')
        assert namespace.apply({**head, "spec": told}, manager="operator")["spec"]["targetVariant"] == "b"
        with pytest.raises(AssertionError, match="Required value"):
            namespace.apply({**head, "spec": {"targetVariant": "c"}}, manager="somebody")
    finally:
        api_server.kubectl("delete", "crd", names, "--ignore-not-found", "--wait=false")


def _owned(stored: dict[str, Any]) -> dict[str, Any]:
    """Fields of spec and status that have an owner."""
    found: dict[str, Any] = {}
    for entry in stored["metadata"]["managedFields"]:
        for part in ("spec", "status"):
            if f"f:{part}" in entry["fieldsV1"]:
                found[part] = entry["fieldsV1"][f"f:{part}"]
    return found


def _is_whole(stored: dict[str, Any]) -> None:
    owned = _owned(stored)["spec"]
    if owned:
        raise Refused(f"still field by field: {owned}")


def _define(api_server: Any, definition: dict[str, Any]) -> None:
    api_server.kubectl("apply", "--server-side", "-f", "-", stdin=definition)
