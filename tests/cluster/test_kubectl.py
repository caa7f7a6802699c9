"""``kubectl edgefolio`` as people call it: kubectl finds the program, the program asks a real API server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_site import Operator, Site, wait_for

BASE = Path(__file__).parents[2] / "manifests" / "base"


class Plugin:
    """kubectl with the plug-in on its PATH."""

    def __init__(self, kubernetes: Any, folder: Path) -> None:
        self.kubernetes = kubernetes
        program = folder / "kubectl-edgefolio"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgefolio_kubectl.main "$@"\n')
        program.chmod(0o755)
        self.environment = {
            **{key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR")},
            "PATH": f"{folder}:{os.environ['PATH']}",
            "KUBECONFIG": str(kubernetes.kubeconfig),
        }

    def command(self, *arguments: str) -> list[str]:
        return [str(self.kubernetes.binaries / "kubectl"), "edgefolio", *arguments]

    def run(self, *arguments: str, code: int = 0, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Call it in the test's namespace; it must end with ``code``."""
        where = [] if "-A" in arguments or "--help" in arguments else ["-n", self.kubernetes.namespace]
        done = subprocess.run(
            self.command(*arguments, *where),
            env={**self.environment, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def shown(self, *arguments: str) -> str:
        return self.run(*arguments).stdout

    def document(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.shown(*arguments, "--json"))
        return found

    def pod_annotations(self, name: str) -> dict[str, str]:
        pod = self.kubernetes.request("GET", self.kubernetes.path("v1", "Pod", name))
        found: dict[str, str] = pod["metadata"].get("annotations", {})
        return found


@pytest.fixture
def plugin(namespace: Any, tmp_path: Path) -> Plugin:
    return Plugin(namespace, tmp_path)


@pytest.fixture
def site(namespace: Any, start: Callable[..., Operator]) -> Site:
    """Two endpoints that an operator keeps."""
    start()
    found = Site(namespace)
    found.served()
    return found


def test_what_serves_and_why(site: Site, plugin: Plugin) -> None:
    text = plugin.shown("status")
    assert "digits: Ready, Serving: 2 of 2 endpoints serve a verified variant." in text
    assert re.search(r"revision 1, current, \d+ \w+ old, manifest 111111111111", text)
    assert re.search(rf"digits-{site.nodes[0]} on {site.nodes[0]}: dense, objectives met", text)
    assert "p95 about 12.5 ms of 20 ms, 4.0 requests/s" in text
    assert "\x1b" not in text, "no colours in a pipe"
    assert max(map(len, text.splitlines())) <= 100
    assert f"{site.kubernetes.namespace}/digits: Ready" in plugin.shown("status", "-A")
    (portfolio,) = plugin.document("status", "digits")["portfolios"]
    assert [entry["activeVariant"] for entry in portfolio["endpoints"]] == ["dense", "dense"]
    assert all(0 <= entry["observation"]["ageSeconds"] < 60 for entry in portfolio["endpoints"])


def test_colours_on_a_terminal(site: Site, plugin: Plugin) -> None:
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        plugin.command("status", "-n", site.kubernetes.namespace),
        env={**plugin.environment, "TERM": "xterm-256color"},
        stdout=terminal,
    ) as process:
        process.wait(timeout=60)
    os.close(terminal)
    text = os.read(controller, 100_000).decode()
    os.close(controller)
    assert "\x1b[32mReady" in text


def test_the_explanation_is_the_operator_s_own(site: Site, plugin: Plugin) -> None:
    name = f"digits-{site.nodes[0]}"
    site.report(0, slowdown=4.0)
    found = plugin.document("explain", site.nodes[0])
    assert (found["endpoint"], found["chosen"]) == (name, "small")
    dense = next(entry for entry in found["variants"] if entry["name"] == "dense")
    assert dense["why"].startswith("p95 48.")
    assert dense["wouldFitWith"] == ["latencyP95Milliseconds of at least 49"]
    wait_for(lambda: site.target(0) == found["chosen"])
    assert site.target(1) == "dense"
    text = plugin.shown("explain", name)
    assert "Fits: small." in text
    assert "switches of this hour are used" in text


def test_a_pin_holds_until_it_is_taken_back(site: Site, plugin: Plugin) -> None:
    name, node = f"digits-{site.nodes[0]}", site.nodes[0]
    text = plugin.shown("pin", node, "small")
    assert f"{name}: pinned to small. Undo: kubectl edgefolio unpin {name}" in text
    assert plugin.pod_annotations(name) == {"edgefolio.dev/pin-variant": "small"}
    wait_for(lambda: site.target(0) == "small")
    site.report(0)
    assert ", pinned" in plugin.shown("status")
    assert "small is pinned and serves whatever the figures say" in plugin.shown("explain", name)
    plugin.kubernetes.kubectl("annotate", "node", node, "edgefolio.dev/pin-variant=small")
    text = plugin.shown("unpin", name)
    assert plugin.pod_annotations(name) == {}
    assert f"Undo: kubectl annotate node {node} edgefolio.dev/pin-variant-" in text
    plugin.kubernetes.kubectl("annotate", "node", node, "edgefolio.dev/pin-variant-")
    wait_for(lambda: site.report(0) or site.target(0) == "dense")


def test_a_paused_endpoint_is_left_as_it_is(site: Site, plugin: Plugin) -> None:
    name = f"digits-{site.nodes[0]}"
    plugin.shown("pause", name)
    assert plugin.pod_annotations(name) == {"edgefolio.dev/paused": "true"}
    wait_for(lambda: site.reason(0) == "Paused")
    site.report(0, slowdown=4.0)
    assert "Hold Paused" in plugin.shown("status")
    assert "Fits: small; but the endpoint is paused" in plugin.shown("explain", name)
    assert site.target(0) == "dense"
    plugin.shown("resume", name)
    assert plugin.pod_annotations(name) == {}
    site.report(0, slowdown=4.0)
    wait_for(lambda: site.target(0) == "small")


def test_another_making_is_asked_for(site: Site, plugin: Plugin) -> None:
    before = {job["metadata"]["name"] for job in site.jobs()}
    assert "a pruning run is asked for (edgefolio.dev/make-requested-at=2" in plugin.shown("make", "digits")
    wait_for(lambda: {job["metadata"]["name"] for job in site.jobs()} - before)
    wait_for(lambda: site.condition("Making")[0] == "True")
    assert "Making, JobRunning" in plugin.shown("status", "digits")
    assert site.condition("Ready") == ("True", "Serving")


def test_a_wrong_name_is_answered_with_near_ones(site: Site, plugin: Plugin) -> None:
    for arguments, field, remedy in (
        (("status", "digit"), "NAME = digit", "Name one of: digits"),
        (("explain", "digits-9"), "ENDPOINT = digits-9", "Name one of: digits-"),
        (("pin", site.nodes[0], "smal"), "VARIANT = smal", "Name one of: small"),
        (("make", "digit"), "NAME = digit", "Name one of: digits"),
        (("status", "digits", "--context", "tets"), "--context = tets", "Name one of: test"),
    ):
        said = plugin.run(*arguments, code=2).stderr
        assert field in said
        assert remedy in said


def test_nothing_there_is_no_error(plugin: Plugin) -> None:
    assert plugin.shown("status").strip() == "There is no ModelPortfolio."
    assert plugin.document("status") == {"portfolios": []}


def test_watching_prints_each_change_once(site: Site, plugin: Plugin) -> None:
    with subprocess.Popen(
        plugin.command("status", "digits", "--watch", "--interval", "0.3", "--json", "-n", site.kubernetes.namespace),
        env=plugin.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["portfolios"][0]["endpoints"][0]["targetVariant"] == "dense"
        site.report(0, slowdown=4.0)
        wait_for(lambda: site.target(0) == "small")
        lines = iter(process.stdout.readline, "")
        targets = (json.loads(line)["portfolios"][0]["endpoints"][0]["targetVariant"] for line in lines)
        assert next(target for target in targets if target != "dense") == "small"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


def user(kubernetes: Any, folder: Path, *, role: str | None) -> Path:
    """A kubeconfig of somebody who has ``role`` in the test's namespace, and nothing else."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "somebody"}}
    kubernetes.apply(account)
    if role is not None:
        subject = {"kind": "ServiceAccount", "name": "somebody", "namespace": kubernetes.namespace}
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "somebody"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [subject],
        }
        kubernetes.request("POST", kubernetes.path("rbac.authorization.k8s.io/v1", "RoleBinding"), binding)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"{kubernetes.path('v1', 'ServiceAccount', 'somebody')}/token"
    token = kubernetes.request("POST", path, request)["status"]["token"]
    return changed(kubernetes, folder, token=token)


def changed(kubernetes: Any, folder: Path, *, token: str | None = None, server: str | None = None) -> Path:
    document = yaml.safe_load(kubernetes.kubeconfig.read_text())
    if token is not None:
        document["users"][0]["user"] = {"token": token}
    if server is not None:
        document["clusters"][0]["cluster"]["server"] = server
    path = folder / "another-kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def test_looking_needs_the_view_role_and_orders_more(
    site: Site, plugin: Plugin, tmp_path: Path, api_server: Any
) -> None:
    api_server.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(BASE))
    viewer = user(plugin.kubernetes, tmp_path, role="edgefolio-view")
    wait_for(lambda: "digits: Ready" in plugin.run("status", kubeconfig=viewer).stdout)
    assert "Fits: dense." in plugin.run("explain", site.nodes[0], kubeconfig=viewer).stdout
    said = plugin.run("pin", site.nodes[0], "small", code=1, kubeconfig=viewer).stderr
    assert "cannot patch resource" in said
    assert len(said.strip().splitlines()) == 1
    assert plugin.pod_annotations(f"digits-{site.nodes[0]}") == {}


@pytest.mark.parametrize("trouble", ["nobody there", "not known", "no rights", "no kubeconfig"])
def test_trouble_is_said_with_a_remedy(plugin: Plugin, tmp_path: Path, unused_ports: Any, trouble: str) -> None:
    kubernetes = plugin.kubernetes
    if trouble == "nobody there":
        kubeconfig = changed(kubernetes, tmp_path, server=f"https://127.0.0.1:{unused_ports(1)[0]}")
        code, words = 1, ("does not answer", "kubectl get --raw /readyz")
    elif trouble == "not known":
        kubeconfig, code, words = changed(kubernetes, tmp_path, token="nobody"), 1, ("does not know you (401)",)
    elif trouble == "no rights":
        kubeconfig, code, words = user(kubernetes, tmp_path, role=None), 1, ("cannot list resource", "edgefolio-view")
    else:
        kubeconfig, code, words = tmp_path / "absent", 2, ("no cluster is named", "KUBECONFIG")
    said = plugin.run("status", code=code, kubeconfig=kubeconfig).stderr
    for word in words:
        assert word in said
    if code == 1:
        assert len(said.strip().splitlines()) == 1


def test_help_teaches(plugin: Plugin) -> None:
    for command in ("status", "explain", "pin", "unpin", "pause", "resume", "make"):
        assert f"kubectl edgefolio {command} " in plugin.shown(command, "--help")
    said = subprocess.run(
        plugin.command(), env=plugin.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "A first round" in said.stdout + said.stderr
