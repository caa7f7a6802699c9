"""Portfolios survive what Helm is told to do with their definitions, and releases that fail; on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from control_plane import ApiServer, Kubernetes
from kubernetes_bed import bed_programs
from rendering import CHART, SYSTEM, Chart, HelmError

from edgefolio_operator.labels import FINALIZER

#: Nothing runs the Job of the hook here.
WITHOUT_HOOK = {"uninstall": {"releaseFinalizers": False}}
KEEP = "helm.sh/resource-policy"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """An API server of this module's own: another's tests would not survive that it fails."""
    binaries = bed_programs("etcd", "kube-apiserver", "kubectl")
    with ApiServer(binaries=binaries, folder=tmp_path_factory.mktemp("definitions")) as kubernetes:
        for name in (SYSTEM, "models"):
            kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield kubernetes


class Release:
    """The release ``edgefolio``, and a portfolio that was there from the first installation on."""

    def __init__(self, chart: Chart, kubernetes: Kubernetes) -> None:
        self._chart = chart
        self.kubernetes = kubernetes
        self._where = ("--kubeconfig", str(kubernetes.kubeconfig), "--namespace", SYSTEM)
        self._uid = ""

    def __call__(self, command: str, *arguments: str, **crds: bool) -> str:
        chart = () if command in ("uninstall", "rollback", "history") else (str(CHART), "--values", "-")
        values: dict[str, Any] = {**WITHOUT_HOOK, "crds": crds}
        return self._chart.run(command, "edgefolio", *chart, *arguments, *self._where, stdin=json.dumps(values))

    def make_portfolio(self) -> None:
        """A portfolio whose revisions go with it, once the operator has seen it."""
        self.kubernetes.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        document = {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "digits", "namespace": "models", "finalizers": [FINALIZER]},
            "spec": {
                "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
                "data": {"trainingURI": "builtin:digits"},
                "methods": {"sparseTraining": {}},
                "repository": {"uri": "s3://bucket/portfolios", "reclaimPolicy": "Delete"},
                "serving": {"modelName": "digits"},
            },
        }
        self.kubernetes.kubectl("apply", "--server-side", "-f", "-", stdin=document)
        self._uid = self._portfolio()["metadata"]["uid"]

    def check(self, *, kept: bool | None = None) -> None:
        """The portfolio is the one that it was, and nobody deletes it."""
        metadata = self._portfolio()["metadata"]
        assert metadata["uid"] == self._uid
        assert "deletionTimestamp" not in metadata
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/modelportfolios.edgefolio.dev"
        definition = self.kubernetes.request("GET", path)["metadata"]
        assert "deletionTimestamp" not in definition
        if kept is not None:
            assert (definition["annotations"].get(KEEP) == "keep") is kept

    def _portfolio(self) -> dict[str, Any]:
        models = self.kubernetes.within("models")
        return models.request("GET", models.path("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits"))


def test_portfolios_stay(chart: Chart, empty: Kubernetes) -> None:
    release = Release(chart, empty)
    release("install")
    release.make_portfolio()
    release.check(kept=True)

    # Definitions that somebody else looks after from now on, and back.
    release("upgrade", enabled=False)
    release.check(kept=True)
    release("upgrade")
    release.check(kept=True)

    # Not to be kept: only uninstalling may take them away, no upgrade.
    release("upgrade", keep=False)
    release.check(kept=False)
    for keep in (False, True):
        with pytest.raises(HelmError, match="would now delete the definitions"):
            release("upgrade", enabled=False, keep=keep)
        release.check(kept=False)
    release("upgrade", keep=True)
    release("upgrade", enabled=False)
    release.check(kept=True)
    release("upgrade")

    # An upgrade that never gets ready (nothing runs here), and is rolled back, as Flux remedies it.
    with pytest.raises(HelmError, match=r"timed out|deadline|not ready"):
        release("upgrade", "--atomic", "--timeout=2s")
    release.check(kept=True)
    with pytest.raises(HelmError, match=r"timed out|deadline|not ready"):
        release("upgrade", "--wait", "--timeout=2s", "--cleanup-on-fail")
    release("rollback", "1", "--cleanup-on-fail", "--force")
    release.check(kept=True)

    # Off, on again, and away.
    release("upgrade", keep=False)
    release("upgrade", keep=True)
    release("uninstall")
    release.check(kept=True)

    # An installation that fails is uninstalled, as Flux remedies it; what was there before stays.
    with pytest.raises(HelmError, match=r"timed out|deadline|not ready"):
        release("install", "--atomic", "--timeout=2s")
    release.check(kept=True)
    assert "edgefolio" not in chart.run("list", "--all", "--kubeconfig", str(empty.kubeconfig), "--namespace", SYSTEM)
    release("install")
    release.check(kept=True)
