"""The chart: what its values do, which values it refuses, and what an upgrade changes."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from rendering import CHART, ROOT, SYSTEM, VALUES, Chart, HelmError, is_hook, named, of_kind, pods_in

from edgefolio.components import TRITON_IMAGE
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels, settings
from edgefolio_operator.resources.daemonset import build_daemon_set
from edgefolio_operator.resources.pruning_job import Images
from edgefolio_operator.resources.repository_jobs import build_check_job

SETS = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())


def test_lint_finds_nothing(chart: Chart) -> None:
    for values in VALUES.values():
        said = chart.run(
            "lint", "--strict", "--kube-version", "1.36.0", str(CHART), "--values", "-", stdin=json.dumps(values)
        )
        assert "[WARNING]" not in said
        assert "0 chart(s) failed" in said


def test_one_version_for_all() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert described["version"] == described["appVersion"] == project


def test_older_clusters_are_refused(chart: Chart) -> None:
    with pytest.raises(HelmError, match=r"incompatible with Kubernetes v1\.29"):
        chart.run("template", "edgefolio", str(CHART), "--kube-version", "1.29.9")


@SETS
def test_every_object_is_labelled_and_in_a_namespace(chart: Chart, values: dict[str, Any]) -> None:
    cluster_wide = ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")
    seen = set()
    for document in chart.documents(values):
        metadata = document["metadata"]
        labels = metadata["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["helm.sh/chart"].startswith("edgefolio-")
        assert values.get("commonLabels", {}).items() <= labels.items()
        outside = document["kind"] in cluster_wide or document["kind"].startswith("ValidatingAdmissionPolicy")
        assert ("namespace" in metadata) != outside
        identity = (document["kind"], metadata.get("namespace"), metadata["name"])
        assert identity not in seen
        seen.add(identity)


@SETS
def test_every_pod_is_restricted_and_small(chart: Chart, values: dict[str, Any]) -> None:
    for what, pod in pods_in(chart.documents(values)):
        assert pod["securityContext"]["runAsNonRoot"] is True, what
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, what
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, what
            assert container["resources"]["limits"]["memory"], what


def test_values_reach_the_operator(chart: Chart) -> None:
    values = VALUES["everything"]
    deployment = named(chart.documents(values), "Deployment", "edgefolio-operator")
    template = deployment["spec"]["template"]
    assert template["metadata"]["labels"].items() >= values["podLabels"].items()
    assert template["metadata"]["annotations"].items() >= values["podAnnotations"].items()
    for key in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert template["spec"][key] == values[key]
    assert template["spec"]["serviceAccountName"] == "own"
    (container,) = template["spec"]["containers"]
    assert container["image"] == f"ghcr.io/edgefolio/operator@sha256:{'1' * 64}"
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container["env"]
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= template["metadata"]["labels"].items()
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["replicas"] == 1


def test_the_operator_is_told_what_it_reads(chart: Chart) -> None:
    """Every variable of its settings, but for those that a pod knows better, and no other one."""
    told = set()
    for values in VALUES.values():
        deployment = of_kind(chart.documents(values), "Deployment")[0]
        told |= {entry["name"] for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    read = set(re.findall(r"``(EDGEFOLIO_\w+)``", settings.Settings.__doc__ or ""))
    known = {"EDGEFOLIO_IDENTITY", "EDGEFOLIO_LEASE_NAMESPACE", "EDGEFOLIO_METRICS_PORT", "EDGEFOLIO_PROBE_PORT"}
    assert {name for name in told if name.startswith("EDGEFOLIO_")} == read - known


def test_what_it_is_told_is_what_it_understands(chart: Chart) -> None:
    deployment = of_kind(chart.documents(VALUES["a few namespaces"]), "Deployment")[0]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found = settings.Settings.of({entry["name"]: entry["value"] for entry in container["env"]})
    assert found.namespaces == ("models", "other")
    assert found.cycle_seconds == 2.0
    assert found.images.triton == TRITON_IMAGE
    ports = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
    assert ports == {"metrics": found.metrics_port, "probe": found.probe_port}


def test_definitions_are_installed_and_kept_as_asked(chart: Chart) -> None:
    kept = of_kind(chart.documents(), "CustomResourceDefinition")
    assert {entry["metadata"]["name"] for entry in kept} == {
        "modelendpoints.edgefolio.dev",
        "modelportfolios.edgefolio.dev",
    }
    assert all(entry["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for entry in kept)
    dropped = of_kind(chart.documents(VALUES["a few namespaces"]), "CustomResourceDefinition")
    assert len(dropped) == 2
    assert all("annotations" not in entry["metadata"] for entry in dropped)
    assert not of_kind(chart.documents(VALUES["least"]), "CustomResourceDefinition")


def test_values_of_an_older_release_mean_the_defaults(chart: Chart) -> None:
    """As ``helm upgrade --reuse-values`` hands them on: without what is new. Nothing is less safe for it."""
    older = {
        "readNodes": None,
        "rbac": {"policy": None, "hostPaths": None},
        "uninstall": {"activeDeadlineSeconds": None, "image": None},
        "networkPolicy": {"endpoints": None},
    }
    assert chart.documents(older) == chart.documents()


def test_the_operators_policy_can_be_left_out(chart: Chart) -> None:
    def policies(values: dict[str, Any]) -> set[str]:
        return {entry["metadata"]["name"] for entry in of_kind(chart.documents(values), "ValidatingAdmissionPolicy")}

    assert policies({}) == {"edgefolio-operator-own-objects", "edgefolio-agent-own-endpoint"}
    assert policies({"rbac": {"policy": False}}) == {"edgefolio-agent-own-endpoint"}
    assert policies({"agent": {"rbac": {"create": False}}}) == {"edgefolio-operator-own-objects"}


def test_endpoints_are_asked_where_they_answer(chart: Chart) -> None:
    """The policies find the operator's pods by their labels, and open the ports that these have by name."""
    head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "a"}}
    spec = {"repository": {"uri": "s3://bucket/path"}, "serving": {"modelName": "m"}}
    portfolio = ModelPortfolio.model_validate({**head, "spec": spec})
    images = Images(pruner="p", agent="a", triton="t")
    serving = build_daemon_set(portfolio, owner={}, images=images)["spec"]["template"]
    check = build_check_job(portfolio, name="c", key="k", owner={}, images=images)["spec"]["template"]

    def selects(policy: dict[str, Any], template: dict[str, Any]) -> bool:
        carried = template["metadata"]["labels"]
        return all(
            rule["key"] in carried and (rule["operator"] == "Exists" or carried[rule["key"]] in rule["values"])
            for rule in policy["spec"]["podSelector"]["matchExpressions"]
        )

    documents = chart.documents(VALUES["everything"])
    policies = [entry for entry in of_kind(documents, "NetworkPolicy") if entry["metadata"]["namespace"] == "models"]
    endpoints, jobs = sorted(policies, key=lambda entry: str(entry["metadata"]["name"]))
    assert selects(endpoints, serving)
    assert not selects(endpoints, check)
    assert selects(jobs, check)
    assert not selects(jobs, serving)
    assert "ingress" not in jobs["spec"]
    named_ports = {
        port["name"]
        for container in (*serving["spec"]["initContainers"], *serving["spec"]["containers"])
        for port in container.get("ports", ())
    }
    clients, metrics = endpoints["spec"]["ingress"]
    opened = {port["port"] for rule in (clients, metrics) for port in rule["ports"]}
    assert named_ports <= opened, "whatever a pod offers is said to whom"
    assert clients["from"] == VALUES["everything"]["networkPolicy"]["endpoints"]["clientsFrom"]
    assert of_kind(chart.documents(), "NetworkPolicy") == []
    watched = chart.documents({"watchNamespaces": ["models"], "networkPolicy": {"endpoints": {"enabled": True}}})
    assert {entry["metadata"]["namespace"] for entry in of_kind(watched, "NetworkPolicy")} == {"models"}
    assert "needs networkPolicy.endpoints.namespaces" in refused(
        chart, {"networkPolicy": {"endpoints": {"enabled": True}}}
    )


def test_a_few_namespaces_need_no_right_in_the_cluster(chart: Chart) -> None:
    documents = chart.documents(VALUES["a few namespaces"])
    # Roles of people and agents are given to nobody here.
    assert of_kind(documents, "ClusterRoleBinding") == []
    roles = [entry for entry in of_kind(documents, "Role") if not is_hook(entry)]
    assert {entry["metadata"]["namespace"] for entry in roles} == {"models", "other", SYSTEM}
    resources = {name for role in roles for rule in role["rules"] for name in rule["resources"]}
    assert not resources & {"nodes", "namespaces"}


def test_least_installs_the_operator_alone(chart: Chart) -> None:
    documents = chart.documents(VALUES["least"])
    assert [document["kind"] for document in documents] == ["Deployment"]
    assert documents[0]["spec"]["template"]["spec"]["serviceAccountName"] == "given"


def test_an_upgrade_changes_the_operator_alone(chart: Chart, tmp_path: Any) -> None:
    """Version, images and values of the next version: but for labels, only the operator's Deployment differs."""

    def rendered(version: str) -> dict[tuple[str, ...], dict[str, Any]]:
        (tmp_path / version).mkdir()
        where = ("--app-version", version, "--version", version, "--destination", str(tmp_path / version))
        chart.run("package", str(CHART), *where)
        package = tmp_path / version / f"edgefolio-{version}.tgz"
        text = chart.run("template", "edgefolio", str(package), "--namespace", SYSTEM, "--kube-version", "1.36.0")
        found = {}
        for document in yaml.safe_load_all(text):
            if document and not is_hook(document):
                del document["metadata"]["labels"]
                found[document["kind"], document["metadata"]["name"]] = document
        return found

    now, then = rendered("1.0.0"), rendered("1.1.0")
    assert now.keys() == then.keys()
    changed = [identity for identity, document in now.items() if document != then[identity]]
    assert changed == [("Deployment", "edgefolio-operator")]
    selector = now["Deployment", "edgefolio-operator"]["spec"]["selector"]
    assert selector == then["Deployment", "edgefolio-operator"]["spec"]["selector"]


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, values


DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def refused(chart: Chart, values: dict[str, Any]) -> str:
    with pytest.raises(HelmError) as caught:
        chart.text(values)
    return str(caught.value)


def test_typos_are_refused_at_every_level(chart: Chart) -> None:
    """A name that the chart does not know is refused wherever the chart itself gives the names."""
    free = {"podSecurityContext", "securityContext", "resources", "labels", "annotations", "nodeSelector"}
    groups = {path[:depth] for path, _ in leaves(DEFAULTS) for depth in range(len(path))}
    checked = [path for path in groups if not free & set(path)]
    assert len(checked) > 15
    wrong: dict[str, Any] = {}
    for path in checked:
        target = wrong
        for key in path:
            target = target.setdefault(key, {})
        target["typo"] = 1
    said = refused(chart, wrong)
    for path in checked:
        where = "".join(f"/{key}" for key in path)
        assert f"at '{where}': additional properties 'typo' not allowed" in said, path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"watchNamespaces": "models"}, "got string, want array"),
        ({"watchNamespaces": ["Models"]}, "does not match pattern"),
        ({"watchNamespaces": ["models", "models"]}, "items at 0 and 1 are equal"),
        ({"image": {"digest": "latest"}}, "does not match pattern"),
        ({"image": {"pullPolicy": "Sometimes"}}, "must be one of"),
        ({"cycleSeconds": 0}, "minimum"),
        ({"crds": {"keep": "yes"}}, "want boolean"),
        ({"rbac": {"hostPaths": ["/"]}}, "does not match pattern"),
        ({"rbac": {"hostPaths": ["/var/lib/../.."]}}, "does not match pattern"),
        ({"rbac": {"hostPaths": ['/var/" + "lib']}}, "does not match pattern"),
        ({"tests": {"repository": {"uri": "./portfolios"}}}, "does not match pattern"),
        ({"tolerations": [{"key": "a", "efect": "NoSchedule"}]}, "additional properties 'efect' not allowed"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "does not match pattern"),
        ({"resources": {"limit": {"memory": "1Gi"}}}, "additional properties 'limit' not allowed"),
        (
            {"metrics": {"service": {"enabled": False}, "serviceMonitor": {"enabled": True}}},
            "serviceMonitor.enabled needs metrics.service.enabled",
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(chart: Chart, values: dict[str, Any], said: str) -> None:
    assert said in refused(chart, values)


def test_as_part_of_another_chart(chart: Chart) -> None:
    """A parent hands on what is global, which is no typo."""
    assert chart.documents({"global": {"imageRegistry": "example.com"}}) == chart.documents()


def test_names_fit_however_long_the_release(chart: Chart) -> None:
    long = "a-release-whose-name-is-as-long-as-helm-lets-it-be-53"
    for document in chart.documents(VALUES["everything"], release=long):
        assert len(document["metadata"]["name"]) <= 63
        for value in document["metadata"]["labels"].values():
            assert len(value) <= 63


@pytest.mark.parametrize("values", [VALUES["everything"], VALUES["a few namespaces"]])
def test_the_portfolio_of_helm_test_is_one(chart: Chart, values: dict[str, Any]) -> None:
    from edgefolio.specification.resource import ModelPortfolio

    config = named(chart.documents(values), "ConfigMap", "edgefolio-test")
    portfolio = ModelPortfolio.model_validate_json(config["data"]["portfolio.json"])
    assert portfolio.metadata.namespace == "models"
    assert portfolio.spec.repository.uri == "s3://bucket/tests"
    assert portfolio.spec.repository.reclaim_policy == "Delete"
    given = values["tests"].get("job")
    assert [entry.name for entry in portfolio.spec.job.env] == (["OMP_NUM_THREADS"] if given else [])


@pytest.mark.parametrize("values", [{}, VALUES["everything"]])
def test_the_pod_alone_is_a_test(chart: Chart, values: dict[str, Any]) -> None:
    """``helm test --logs`` asks for the logs of whatever is a test, and fails for what is no pod."""
    tests = [
        document["kind"]
        for document in chart.documents(values)
        if document["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"
    ]
    assert tests == ["Pod"]


def test_scripts_take_off_the_finalizer_that_the_operator_puts_on(chart: Chart) -> None:
    script = named(chart.documents(), "ConfigMap", "edgefolio-uninstall")["data"]["release_finalizers.py"]
    (prefix,) = re.findall(r'^PREFIX = "(.+)"$', script, flags=re.MULTILINE)
    assert labels.FINALIZER.startswith(prefix)


def test_schema_knows_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def resolved(node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in node:
            found: dict[str, Any] = schema["definitions"][node["$ref"].rpartition("/")[2]]
            return found
        return node

    for path, _ in leaves(copy.deepcopy(DEFAULTS)):
        node: dict[str, Any] = schema
        for key in path:
            node = resolved(node)
            if "properties" not in node:
                break  # a map of whatever the user names
            node = node["properties"][key]
