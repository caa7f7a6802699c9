"""The Job that a portfolio becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgefolio.contract.making_key import making_key
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.resources.pruning_job import (
    Images,
    build_job,
    build_specification,
    claims_in,
    localized,
)
from edgefolio_operator.resources.repository_jobs import build_check_job, build_reclaim_job
from edgefolio_operator.revisions.pruning_job import pieces_to_make

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


APART: dict[str, Any] = {
    "source": {"architecture": {"library": "edgefolio", "name": "cnn"}, "weightsURI": "s3://bucket/w.safetensors"},
    "methods": {"sparseTraining": {}, "oneShot": {"macsPercent": [50, 25]}},
    "job": {"parallelism": 2, "workDirectory": {"uri": "s3://bucket/work/"}},
}


def test_pieces_are_an_indexed_job() -> None:
    assert pieces_to_make(portfolio(**APART).spec) == 3
    built = build_job(portfolio(**APART), key="0123456789abcdef", owner=OWNER, images=IMAGES, pieces=3)
    spec = built["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 2)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (3, 0)
    assert "backoffLimit" not in spec
    assert built["metadata"]["annotations"]["edgefolio.dev/pieces"] == "3"
    assert container(built)["args"][-2:] == ["--pieces", "3"]
    # It reads the file of the pruning run that it is a part of.
    volumes = {volume["name"]: volume for volume in spec["template"]["spec"]["volumes"]}
    assert volumes["specification"] == {"name": "specification", "configMap": {"name": "digits-make-01234567"}}


@pytest.mark.parametrize(
    ("change", "pieces"),
    [
        ({"job": {**APART["job"], "parallelism": 1}}, 0),
        ({"methods": {"oneShot": {"macsPercent": [50]}}}, 0),
        ({"methods": {"oneShot": {"macsPercent": [50, 25, 50]}}}, 2),
    ],
)
def test_what_is_made_by_one_job(change: dict[str, Any], pieces: int) -> None:
    assert pieces_to_make(portfolio(**{**APART, **change}).spec) == pieces


@pytest.mark.parametrize("portfolio_name", ["d", "d" * 48, f"{'d' * 37}-{'e' * 10}"])
def test_names_leave_room_for_what_kubernetes_adds(portfolio_name: str) -> None:
    # The host of the last pod of an Indexed Job is called <job>-<index>.
    assert len(labels.pieces_job_name(portfolio_name, "0123456789abcdef") + "-16") <= 63
    for name in (
        labels.job_name(portfolio_name, "0123456789abcdef"),
        labels.check_job_name(portfolio_name, "x"),
        labels.reclaim_job_name(portfolio_name),
    ):
        assert len(name) <= 63
    assert labels.pieces_job_name("a" * 48, "k") != labels.pieces_job_name("a" * 47 + "b", "k")


def test_a_work_directory_in_an_object_store() -> None:
    built = job(job=APART["job"], source=APART["source"], methods=APART["methods"])
    only, pod = container(built), built["spec"]["template"]["spec"]
    assert only["args"][2:] == ["--work-uri", "s3://bucket/work/models/digits"]
    assert {"name": "EDGEFOLIO_MAKING", "value": "0123456789abcdef"} in only["env"]
    # It goes on anywhere, so it need not wait for its node to come back.
    assert [(entry["key"], entry["tolerationSeconds"]) for entry in pod["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 60),
        ("node.kubernetes.io/unreachable", 60),
    ]
    mounts = {mount["mountPath"]: mount["name"] for mount in only["volumeMounts"]}
    assert {"name": mounts["/work"], "emptyDir": {}} in pod["volumes"]


@pytest.mark.parametrize(
    ("toleration", "added"),
    [
        ({"operator": "Exists"}, 0),
        ({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 900}, 1),
        ({"key": "training", "operator": "Exists"}, 2),
    ],
)
def test_what_the_user_tolerates_counts(toleration: dict[str, Any], added: int) -> None:
    built = job(**{**APART, "job": {**APART["job"], "tolerations": [toleration]}})
    assert len(built["spec"]["template"]["spec"]["tolerations"]) == 1 + added


def test_a_job_stays_long_enough_to_be_seen() -> None:
    assert job(job={"ttlSecondsAfterFinished": 0})["spec"]["ttlSecondsAfterFinished"] == 60
    assert job(job={"ttlSecondsAfterFinished": 300})["spec"]["ttlSecondsAfterFinished"] == 300


def test_the_file_holds_no_defaults() -> None:
    """A pruner of a version before knows not every field; those it does not know hold their default as a rule."""
    given = ModelPortfolio.model_validate(portfolio().model_dump(mode="json", by_alias=True, exclude_none=True))
    document = json.loads(build_specification(given, key="0", owner=OWNER)["data"]["portfolio.json"])
    assert sorted(document["spec"]) == ["data", "methods", "repository", "serving", "source"]
    assert document["spec"]["repository"] == {"uri": "s3://bucket/portfolios"}


FOLLOWING = {"source": None, "data": None, "methods": {}}


def test_the_job_that_looks_runs_the_agent_where_the_endpoints_run() -> None:
    managed = {"nodeSelector": {"class": "edge"}, "imagePullPolicy": "Never"}
    given = portfolio(
        **FOLLOWING,
        repository={"uri": "pvc://shared/portfolios", "secretRef": {"name": "s3"}},
        serving={"modelName": "digits", "managed": managed},
        pinnedRevision=4,
    )
    built = build_check_job(given, name="digits-check-1", key="k", owner=OWNER, images=IMAGES)
    only, pod = container(built), built["spec"]["template"]["spec"]
    assert (only["image"], only["imagePullPolicy"], pod["nodeSelector"]) == (
        "example.com/agent:1",
        "Never",
        {"class": "edge"},
    )
    assert only["command"] == [
        *("python3", "-m", "edgefolio_edge.check"),
        *("/claims/shared/portfolios", "digits", "--revision", "4"),
    ]
    assert only["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert pod["volumes"][-1]["persistentVolumeClaim"] == {"claimName": "shared", "readOnly": True}
    assert built["metadata"]["ownerReferences"] == [OWNER]
    assert (built["spec"]["backoffLimit"], pod["automountServiceAccountToken"]) == (0, False)


def test_the_job_that_deletes_runs_where_the_revisions_were_made() -> None:
    given = portfolio(
        job={
            "image": "example.com/own:2",
            "nodeSelector": {"class": "big"},
            "resources": {"limits": {"memory": "9Gi"}},
        },
        data={"trainingURI": "pvc://data/train.npz"},
        repository={"uri": "s3://bucket/portfolios", "reclaimPolicy": "Delete"},
    )
    built = build_reclaim_job(given, uid="u", images=IMAGES)
    only, pod = container(built), built["spec"]["template"]["spec"]
    assert (only["image"], pod["nodeSelector"]) == ("example.com/own:2", {"class": "big"})
    assert only["command"][1:] == ["-m", "edgefolio_pruner.reclaim", "s3://bucket/portfolios", "digits"]
    # It is small, needs no data, and outlives what the portfolio owns.
    assert only["resources"]["limits"] == {"memory": "512Mi"}
    assert [mount["mountPath"] for mount in only["volumeMounts"]] == ["/tmp"]
    assert "ownerReferences" not in built["metadata"]
