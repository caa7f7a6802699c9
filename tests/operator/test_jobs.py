"""The Job that a portfolio becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.jobs import Images, build_job, build_specification, claims_in, localized, making_key

IMAGES = Images(pruner="example.com/pruner:1", agent="example.com/agent:1", triton="example.com/triton:1")
OWNER = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "name": "digits", "uid": "u"}


def portfolio(**spec: Any) -> ModelPortfolio:
    base = {
        "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
        "data": {"trainingURI": "builtin:digits"},
        "methods": {"sparseTraining": {}},
        "repository": {"uri": "s3://bucket/portfolios"},
        "serving": {"modelName": "digits"},
    }
    return ModelPortfolio.model_validate(
        {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "digits", "namespace": "models"},
            "spec": {**base, **spec},
        }
    )


def job(**spec: Any) -> dict[str, Any]:
    return build_job(portfolio(**spec), key="0123456789abcdef", owner=OWNER, images=IMAGES)


def container(document: dict[str, Any]) -> dict[str, Any]:
    (only,) = document["spec"]["template"]["spec"]["containers"]
    return only


def test_the_plain_job() -> None:
    built = job()
    assert built["metadata"]["name"] == "digits-make-01234567"
    assert built["metadata"]["namespace"] == "models"
    assert built["metadata"]["ownerReferences"] == [OWNER]
    assert built["metadata"]["annotations"] == {"edgefolio.dev/specification-hash": "0123456789abcdef"}
    assert container(built)["image"] == "example.com/pruner:1"
    assert built["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]
    assert "activeDeadlineSeconds" not in built["spec"]
    assert "envFrom" not in container(built)


def test_settings_reach_the_pod() -> None:
    built = job(
        job={
            "image": "example.com/own:2",
            "imagePullPolicy": "Never",
            "imagePullSecrets": [{"name": "pull"}],
            "resources": {"requests": {"cpu": 1}, "limits": {"memory": "4Gi"}},
            "nodeSelector": {"class": "big"},
            "tolerations": [{"key": "training", "operator": "Exists"}],
            "priorityClassName": "low",
            "suspend": True,
            "backoffLimit": 1,
            "activeDeadlineSeconds": 3600,
            "env": [{"name": "A", "value": "1"}],
        },
        repository={"uri": "s3://bucket/portfolios", "secretRef": {"name": "s3"}},
    )
    pod = built["spec"]["template"]["spec"]
    assert (built["spec"]["suspend"], built["spec"]["backoffLimit"]) == (True, 1)
    assert built["spec"]["activeDeadlineSeconds"] == 3600
    assert pod["nodeSelector"] == {"class": "big"}
    assert pod["tolerations"] == [{"key": "training", "operator": "Exists"}]
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["priorityClassName"] == "low"
    only = container(built)
    assert (only["image"], only["imagePullPolicy"]) == ("example.com/own:2", "Never")
    assert only["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}}
    assert only["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert {"name": "A", "value": "1"} in only["env"]


def test_every_mount_has_its_volume_and_claims_appear_once() -> None:
    spec = {
        "data": {"trainingURI": "pvc://data/train.npz", "testURI": "pvc://data/test.npz"},
        "repository": {"uri": "pvc://portfolios/all"},
        "job": {
            "workDirectory": {"claimName": "work"},
            "volumes": [{"claimName": "libraries", "mountPath": "/opt/site"}, {"claimName": "data", "mountPath": "/d"}],
        },
    }
    built = job(**spec)
    volumes = {volume["name"]: volume for volume in built["spec"]["template"]["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container(built)["volumeMounts"]}
    claims = {
        path: volumes[mount["name"]].get("persistentVolumeClaim", {}).get("claimName") for path, mount in mounts.items()
    }
    assert claims == {
        "/etc/edgefolio": None,
        "/tmp": None,
        "/work": "work",
        "/claims/data": "data",
        "/claims/portfolios": "portfolios",
        "/opt/site": "libraries",
        "/d": "data",
    }
    used = [claim for volume in volumes.values() if (claim := volume.get("persistentVolumeClaim"))]
    assert len(used) == 4
    assert mounts["/opt/site"]["readOnly"] is True
    assert "readOnly" not in mounts["/claims/portfolios"]


def test_the_file_is_the_user_s_own_with_claims_as_paths() -> None:
    given = portfolio(data={"trainingURI": "pvc://data/train.npz"}, seed=3)
    configuration = build_specification(given, key="0123456789abcdef", owner=OWNER)
    assert configuration["metadata"]["name"] == "digits-make-01234567"
    document = json.loads(configuration["data"]["portfolio.json"])
    again = ModelPortfolio.model_validate(document).spec
    assert again.data is not None
    assert again.data.training_uri == "/claims/data/train.npz"
    assert again.model_copy(update={"data": given.spec.data}) == given.spec


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("pvc://a/b/c.npz", "/claims/a/b/c.npz"),
        ("pvc://a", "/claims/a"),
        ("s3://a/b", "s3://a/b"),
        ("pvc:///etc", "pvc:///etc"),
        ("pvc://../etc", "pvc://../etc"),
    ],
)
def test_localized(uri: str, path: str) -> None:
    assert localized({"a": [uri]}) == {"a": [path]}


def test_claims_are_found_in_uris_only() -> None:
    given = portfolio(job={"env": [{"name": "A", "value": "pvc://b/c"}]}, repository={"uri": "pvc://a/x"})
    assert claims_in(given.spec) == ("a",)


def test_restricted() -> None:
    built = job()
    pod = built["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    security = container(built)["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False


KEY = making_key(portfolio().spec)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"methods": {"sparseTraining": {"levels": 3}}}, True, id="a default written out"),
        pytest.param({"objectives": {"latencyP95Milliseconds": 9}}, True, id="objectives"),
        pytest.param({"job": {"backoffLimit": 1}}, True, id="how the job runs"),
        pytest.param({"serving": {"modelName": "other"}}, True, id="how it is served"),
        pytest.param({"seed": 1}, False, id="seed"),
        pytest.param({"data": {"trainingURI": "builtin:digits", "normalization": None}}, True, id="nothing given"),
        pytest.param(
            {
                "data": {
                    "trainingURI": "builtin:digits",
                    "normalization": {"mean": ["0.5"], "standardDeviation": ["0.5"]},
                }
            },
            False,
            id="normalization",
        ),
        pytest.param({"methods": {"sparseTraining": {"levels": 2}}}, False, id="methods"),
        pytest.param({"profiling": {"threads": 2}}, False, id="profiling"),
    ],
)
def test_what_a_making_is_made_from(change: dict[str, Any], same: bool) -> None:
    assert (making_key(portfolio(**change).spec) == KEY) is same


def test_a_request_makes_once_more() -> None:
    assert len({making_key(portfolio().spec, request=request) for request in ("", "monday", "tuesday")}) == 3
