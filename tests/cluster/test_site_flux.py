"""Flux itself: it applies a site's portfolios, waits for them, says what is wrong, sees no drift, and prunes them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from cluster_site import wait_for
from control_plane import BED
from edge_revisions import FOLLOWING
from edge_site import EdgeSite
from flux import Flux, running

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

NAME, LABEL = "by-flux", "bed/flux"


@pytest.fixture(scope="module")
def flux(edge_site: EdgeSite) -> Iterator[Flux]:
    """Flux on the cluster; compiled where it was not yet, which takes minutes."""
    subprocess.run([BED / "build.sh", "flux"], check=True, timeout=1500, capture_output=True)
    with running(edge_site.kubernetes) as flux:
        note = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "by-flux", "namespace": "default"}}
        flux.put("note", note)
        flux.sync()
        wait_for(flux.current, seconds=60)
        yield flux
        flux.leave()


@pytest.fixture
def place(edge_site: EdgeSite) -> Iterator[EdgeSite]:
    """A namespace of Flux' own on edge-3, which follows what the site publishes."""
    edge_site.calm()
    place = EdgeSite(edge_site.kubernetes, edge_site.machine.run, namespace="flux-site")
    place.prepare()
    place.kubernetes.kubectl("label", "node", "edge-3", f"{LABEL}=yes", "--overwrite")
    yield place
    place.kubernetes.kubectl("label", "node", "edge-3", f"{LABEL}-")


def portfolio(place: EdgeSite, **changes: Any) -> dict[str, Any]:
    """The portfolio as it lies in Git: it follows the site's revisions and serves on edge-3."""
    managed = {**place.spec["serving"]["managed"], "nodeSelector": {LABEL: "yes"}}
    serving = {**place.spec["serving"], "managed": managed}
    spec = {**place.spec, **FOLLOWING, "serving": serving, **changes}
    return {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelPortfolio",
        "metadata": {"name": NAME, "namespace": place.namespace},
        "spec": {key: value for key, value in spec.items() if value is not None and key != "job"},
    }


def test_a_portfolio_lives_its_life_by_flux(flux: Flux, place: EdgeSite) -> None:
    # Applied, and Ready no sooner than it serves.
    flux.put(NAME, portfolio(place))
    wait_for(flux.current, seconds=300)
    assert place.condition("Ready", NAME)[0] == "True"
    assert place.active("edge-3") == place.variants(NAME)[-1]["name"]

    # Switches, and Flux looking every 5 s, change nothing of what Git says.
    generation, told = place.portfolio(NAME)["metadata"]["generation"], len(flux.changes())
    pod = place.pod_on("edge-3")["metadata"]["name"]
    for annotation, variant in (
        (f"edgefolio.dev/pin-variant={place.variants(NAME)[0]['name']}", place.variants(NAME)[0]["name"]),
        ("edgefolio.dev/pin-variant-", place.variants(NAME)[-1]["name"]),
    ):
        place.kubernetes.kubectl("annotate", "pod", pod, annotation)
        place.settle_on(variant, "edge-3", seconds=120)
        reconciled = flux.kustomization()["status"].get("history", [{}])[0].get("totalReconciliations", 0)
        wait_for(
            lambda seen=reconciled: flux.kustomization()["status"]["history"][0]["totalReconciliations"] > seen + 1,
            seconds=60,
        )
        assert flux.current()
    assert place.portfolio(NAME)["metadata"]["generation"] == generation
    assert len(flux.changes()) == told

    # An edit by hand is set right, as Git wants it.
    edit = '{"spec":{"switching":{"minDwellSeconds":50}}}'
    place.kubernetes.kubectl("patch", "mpf", NAME, "--type=merge", f"--patch={edit}")
    wait_for(lambda: place.portfolio(NAME)["spec"]["switching"]["minDwellSeconds"] == 5, seconds=60)

    # What the API server refuses: Flux names the field, and serving goes on.
    serving = place.pod_on("edge-3")["metadata"]["uid"]
    flux.put(NAME, portfolio(place, objectives={"latencyP95Milliseconds": -1}))
    wait_for(lambda: flux.ready()[0] == "False" and "objectives.latencyP95Milliseconds" in flux.ready()[2], seconds=60)
    flux.put(NAME, portfolio(place))
    wait_for(flux.current, seconds=120)
    assert place.pod_on("edge-3")["metadata"]["uid"] == serving

    # Taken out of Git: gone, with everything that was made for it.
    flux.remove(NAME)
    wait_for(lambda: flux.current() and not place.pods("edgefolio.dev/endpoint"), seconds=120)
    assert not place.endpoints()
    found = place.kubernetes.request("GET", place.kubernetes.path("edgefolio.dev/v1alpha1", "ModelPortfolio"))
    assert not found["items"]
