"""What Helm and kustomize make of the manifests, as documents."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "edgefolio"
MANIFESTS = ROOT / "manifests"
SYSTEM = "edgefolio-system"

Document = dict[str, Any]

#: Sets of values that are rendered and judged. "everything" turns on whatever is off by default.
VALUES: dict[str, Document] = {
    "default": {},
    "everything": {
        "commonLabels": {"team": "edge"},
        "commonAnnotations": {"example.com/note": "all"},
        "image": {"digest": f"sha256:{'1' * 64}"},
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccount": {"name": "own", "annotations": {"example.com/role": "operator"}},
        "podLabels": {"example.com/cost": "edge"},
        "podAnnotations": {"example.com/scrape": "no"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "edge", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchExpressions": [{"key": "control", "operator": "Exists"}]}}
                ]
            }
        },
        "priorityClassName": "system-cluster-critical",
        "rbac": {"hostPaths": ["/var/lib/edgefolio"]},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "metrics": {
            "service": {"annotations": {"example.com/metrics": "operator"}},
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "triton": True},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboard": {"enabled": True, "namespace": "monitoring"},
        },
        "podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%"},
        "networkPolicy": {
            "enabled": True,
            "apiServer": {"cidrs": ["10.0.0.1/32", "fd00::1/128"]},
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "endpoints": {
                "enabled": True,
                "namespaces": ["models", "other"],
                "clientsFrom": [{"podSelector": {"matchLabels": {"role": "client"}}}],
            },
        },
        "tests": {
            "namespace": "models",
            "repository": {"uri": "s3://bucket/tests", "secretRef": "s3"},
            "job": {"env": [{"name": "OMP_NUM_THREADS", "value": "1"}]},
            "managed": {"nodeSelector": {"kubernetes.io/os": "linux"}},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "edge", "operator": "Exists"}],
        },
    },
    "a few namespaces": {
        "watchNamespaces": ["models", "other"],
        "crds": {"keep": False},
        "tests": {"repository": {"uri": "s3://bucket/tests"}},
    },
    "a few namespaces and all nodes": {"watchNamespaces": ["models"], "readNodes": True},
    "least": {
        "fullnameOverride": "least",
        "crds": {"enabled": False},
        "serviceAccount": {"create": False, "name": "given"},
        "rbac": {"create": False},
        "agent": {"rbac": {"create": False}},
        "metrics": {"service": {"enabled": False}},
        "uninstall": {"releaseFinalizers": False},
        "tests": {"enabled": False},
    },
    # What the HelmChart of manifests/k3s says.
    "k3s": yaml.safe_load(
        next(
            document
            for document in yaml.safe_load_all((MANIFESTS / "k3s" / "edgefolio.yaml").read_text())
            if document["kind"] == "HelmChart"
        )["spec"]["valuesContent"]
    ),
}


class HelmError(Exception):
    """Helm said no; the message is what it said."""


class Chart:
    """The chart, rendered as ``helm install edgefolio`` would, without a cluster."""

    def __init__(self, helm: Path) -> None:
        self.helm = helm
        self._rendered: dict[str, str] = {}

    def run(self, *arguments: str, stdin: str = "") -> str:
        """What helm prints. Raises :class:`HelmError`."""
        done = subprocess.run(
            [self.helm, *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise HelmError(done.stderr + done.stdout)
        return done.stdout

    def text(self, values: Document | None = None, *, release: str = "edgefolio", namespace: str = SYSTEM) -> str:
        """What helm would send. Raises :class:`HelmError`."""
        given = json.dumps(values or {})
        key = json.dumps([release, namespace, given])
        if key not in self._rendered:
            # Without a cluster helm takes a version that it was built with, and some builds know none.
            where = ("--namespace", namespace, "--kube-version", "1.36.0", "--values", "-")
            self._rendered[key] = self.run("template", release, str(CHART), *where, stdin=given)
        return self._rendered[key]

    def documents(self, values: Document | None = None, **names: str) -> list[Document]:
        """The same as documents."""
        return [document for document in yaml.safe_load_all(self.text(values, **names)) if document]


class Kustomize:
    """``kubectl kustomize``."""

    def __init__(self, kubectl: Path) -> None:
        self._kubectl = kubectl

    def documents(self, folder: Path) -> list[Document]:
        """What is in a folder with a kustomization."""
        done = subprocess.run(
            [self._kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]


def named(documents: list[Document], kind: str, name: str) -> Document:
    """The only document of this kind and name."""
    (found,) = [entry for entry in documents if (entry["kind"], entry["metadata"]["name"]) == (kind, name)]
    return found


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    """Documents of these kinds."""
    return [document for document in documents if document["kind"] in kinds]


def pods_in(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """Kind and name, and the pod's specification, of whatever makes pods."""
    for document in documents:
        what = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] == "Pod":
            yield what, document["spec"]
        elif document["kind"] in ("Deployment", "DaemonSet", "Job"):
            yield what, document["spec"]["template"]["spec"]


def is_hook(document: Document) -> bool:
    """Whether Helm applies it at certain moments only."""
    return "helm.sh/hook" in document["metadata"].get("annotations", {})


def _definition(kind: str, plural: str, group: str = "monitoring.coreos.com", version: str = "v1") -> Document:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


MONITORING = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        _definition("ServiceMonitor", "servicemonitors"),
        _definition("PodMonitor", "podmonitors"),
        _definition("PrometheusRule", "prometheusrules"),
    ],
}
