"""Faults of the control plane and of nodes, each with the claim by which it is over."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bed_faults import rotate_authority
from bed_machine import container_id
from control_plane import Refused
from edge_site import SYSTEM, EdgeSite

NODE = "edge-1"
ACCOUNT = "edgefolio-agent"
#: Nothing may take longer.
LONGEST_SECONDS = 600.0
RIGHTS = "rbac.authorization.k8s.io/v1"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault: it is made, for some at once mended by whoever has to, and over when ``converged``.

    The clock starts where ``make`` returns: from there on nothing but Edgefolio and Kubernetes acts.
    """

    name: str
    make: Callable[[EdgeSite], None]
    converged: Callable[[EdgeSite], bool]
    undo: Callable[[EdgeSite], None] = lambda _: None


def _system(site: EdgeSite) -> Any:
    return site.kubernetes.within(SYSTEM)


def _pin(site: EdgeSite, variant: str | None) -> None:
    pod = site.pod_on(NODE)["metadata"]["name"]
    value = "-" if variant is None else f"={variant}"
    site.kubernetes.kubectl("annotate", "--overwrite", "pod", pod, f"edgefolio.dev/pin-variant{value}")


def _delete_lease(site: EdgeSite) -> None:
    _system(site).kubectl("delete", "lease", "--all", "--wait=true")
    _pin(site, site.fastest)


def _serves_the_pinned(site: EdgeSite) -> bool:
    return site.active(NODE) == site.fastest


def _serves_again(site: EdgeSite) -> bool:
    return site.condition("Ready")[0] == "True" and site.active(NODE) == site.most_accurate and site.routed(NODE)


def _kill_operator(site: EdgeSite) -> None:
    selector = ("-l", "app.kubernetes.io/component=operator")
    _system(site).kubectl("delete", "pod", *selector, "--grace-period=0", "--force", "--wait=false")
    _pin(site, site.fastest)


def _exists(site: EdgeSite, version: str, kind: str, name: str) -> bool:
    try:
        site.kubernetes.request("GET", site.kubernetes.path(version, kind, name))
    except Refused:
        return False
    return True


def _delete(kind: str, name: str) -> Callable[[EdgeSite], None]:
    def delete(site: EdgeSite) -> None:
        site.kubernetes.kubectl("delete", kind, name, "--wait=true")

    return delete


def _replace_pods(site: EdgeSite) -> None:
    """Tokens of an account that was made anew are void, and the kubelet asks for others within an hour only."""
    site.kubernetes.kubectl("delete", "pod", "-l", "edgefolio.dev/endpoint", "--wait=true")
    until(lambda: _serves_again(site), seconds=LONGEST_SECONDS)


def _rotate_authority(site: EdgeSite) -> None:
    """At once, as after the loss of a key: whoever was told of the old one alone is cut off."""
    rotate_authority(site.machine, announced=None)
    until(lambda: _pinned(site), seconds=LONGEST_SECONDS)


def _pinned(site: EdgeSite) -> bool:
    _pin(site, site.fastest)
    return True


def _edit_selector(site: EdgeSite) -> None:
    patch = '{"spec": {"selector": {"edgefolio.dev/portfolio": "nobody"}}}'
    site.kubernetes.kubectl("patch", "service", "digits", "--type=merge", "-p", patch)


def _selects(site: EdgeSite) -> bool:
    service = site.kubernetes.request("GET", site.kubernetes.path("v1", "Service", "digits"))
    return service["spec"]["selector"].get("edgefolio.dev/portfolio") == "digits" and site.routed(NODE)


def _set_quota(site: EdgeSite) -> None:
    """No pod may be made, and the one on the node goes: the portfolio has to say so."""
    site.kubernetes.kubectl("create", "quota", "few", "--hard=pods=0")
    site.kubernetes.kubectl("delete", "pod", site.pod_on(NODE)["metadata"]["name"], "--wait=true")


def _says_quota(site: EdgeSite) -> bool:
    return site.condition("Ready") == ("False", "PodsNotCreated")


def _raise_quota(site: EdgeSite) -> None:
    _lift(site)
    until(lambda: _serves_again(site), seconds=LONGEST_SECONDS)


def _lift(site: EdgeSite) -> None:
    site.kubernetes.kubectl("delete", "quota", "few", "--ignore-not-found", "--wait=true")


def _lift_quota(site: EdgeSite) -> None:
    _set_quota(site)
    until(lambda: _says_quota(site), seconds=LONGEST_SECONDS)
    _lift(site)


def _spoil_secret(site: EdgeSite) -> None:
    """A new pod reads wrong credentials, until the portfolio says so; then they are mended."""
    keys = site.kubernetes.request("GET", site.kubernetes.path("v1", "Secret", "s3"))["data"]
    wrong = {**keys, "AWS_SECRET_ACCESS_KEY": "d3Jvbmc="}
    site.kubernetes.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3-read"}, "data": wrong})
    site.kubernetes.kubectl("delete", "pod", site.pod_on(NODE)["metadata"]["name"], "--wait=true")
    until(lambda: site.condition("RepositoryReadable")[0] == "False", seconds=LONGEST_SECONDS)
    site.kubernetes.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3-read"}, "data": keys})


def busy(site: EdgeSite) -> None:
    """An objective that a busy neighbour breaks, and the neighbour."""
    _ask(site)
    site.start_hog(NODE)


def _ask(site: EdgeSite) -> None:
    """Ask for a latency, and wait until the agent has heard of it."""
    objective = site.objective()
    site.apply(objectives={"latencyP95Milliseconds": objective})

    def is_heard() -> bool:
        found = site.endpoints()[NODE]
        asked = found["spec"]["objectives"].get("latencyP95Milliseconds") == objective
        heard = found["status"]["observedGeneration"] == found["metadata"]["generation"]
        return bool(asked and heard and site.active(NODE) == site.most_accurate)

    until(is_heard, seconds=LONGEST_SECONDS)


def _refuse_agents(site: EdgeSite) -> None:
    """The agents' role loses its rules, as by an administrator's mistake, and a neighbour takes the processor."""
    _ask(site)
    site.kubernetes.kubectl("patch", "clusterrole", ACCOUNT, "--type=merge", "-p", '{"rules": []}')
    site.start_hog(NODE)


def _answered_by_another(site: EdgeSite) -> bool:
    """What a client sees: an agent that is refused cannot report."""
    client = site.start_client(NODE, rate=4, seconds=4)
    try:
        version = client.requests()[-1].version
    finally:
        client.stop()
    newest = site.portfolio()["status"]["revisions"][-1]
    return version is not None and version < 100 * newest["number"] + len(newest["variants"])


def _calm(site: EdgeSite) -> None:
    """The neighbour goes, and the agents have their rules again: the chart's."""
    rules = [
        {"apiGroups": ["edgefolio.dev"], "resources": ["modelendpoints"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["edgefolio.dev"], "resources": ["modelendpoints/status"], "verbs": ["patch"]},
    ]
    site.kubernetes.kubectl("patch", "clusterrole", ACCOUNT, "--type=merge", "-p", json.dumps({"rules": rules}))
    site.calm()


def _restart_kubelet(site: EdgeSite) -> None:
    site.machine.restart(NODE, "kubelet")
    site.kill(NODE, "triton")


def _with_another_triton(name: str, make: Callable[[EdgeSite], None]) -> Fault:
    """A fault that ends Triton: over when another one serves, whatever the status still says of the old one."""
    before: list[str] = []

    def made(site: EdgeSite) -> None:
        before[:] = [container_id(site.pod_on(NODE), "triton")]
        make(site)

    def is_over(site: EdgeSite) -> bool:
        pod = site.pod_on(NODE)
        statuses = [entry for entry in pod["status"].get("containerStatuses", ()) if entry["name"] == "triton"]
        return (
            bool(statuses) and statuses[0]["ready"] and [container_id(pod, "triton")] != before and _serves_again(site)
        )

    return Fault(name=name, make=made, converged=is_over)


def _drain(site: EdgeSite) -> None:
    """The node is emptied, its serving pod by hand, and then taken back."""
    node = site.kubernetes.within("default")
    options = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
    node.kubectl("drain", NODE, *options)
    site.kubernetes.kubectl("delete", "pod", site.pod_on(NODE)["metadata"]["name"], "--wait=true")
    node.kubectl("uncordon", NODE)


def until(claim: Callable[[], bool], *, seconds: float) -> float:
    """The seconds until ``claim`` held. Raises AssertionError if it does not within ``seconds``."""
    began = time.monotonic()
    while True:
        # What is asked about may not be there yet, nor the API server.
        with contextlib.suppress(AssertionError, KeyError, IndexError, ValueError, OSError):
            if claim():
                return time.monotonic() - began
        if time.monotonic() > began + seconds:
            raise AssertionError(f"not within {seconds:.0f} s")
        time.sleep(0.25)


FAULTS: tuple[Fault, ...] = (
    Fault(name="Lease deleted, then a variant pinned: it serves", make=_delete_lease, converged=_serves_the_pinned),
    Fault(name="operator killed, a variant pinned: it serves", make=_kill_operator, converged=_serves_the_pinned),
    Fault(
        name="agents' RoleBinding deleted: it is back",
        make=_delete("rolebinding", ACCOUNT),
        converged=lambda site: _exists(site, RIGHTS, "RoleBinding", ACCOUNT),
    ),
    Fault(
        name="agents' ServiceAccount deleted: it is back",
        make=_delete("serviceaccount", ACCOUNT),
        converged=lambda site: _exists(site, "v1", "ServiceAccount", ACCOUNT),
        undo=_replace_pods,
    ),
    Fault(name="Service's selector edited: clients are routed", make=_edit_selector, converged=_selects),
    Fault(
        name="quota of no pods, a pod deleted: Ready is False and says why",
        make=_set_quota,
        converged=_says_quota,
        undo=_raise_quota,
    ),
    Fault(name="the quota is lifted: it serves", make=_lift_quota, converged=_serves_again, undo=_raise_quota),
    Fault(
        name="a wrong Secret, which the portfolio names, is mended: it serves",
        make=_spoil_secret,
        converged=_serves_again,
    ),
    Fault(
        name="agents refused (403) and a busy neighbour: a faster variant answers",
        make=_refuse_agents,
        converged=_answered_by_another,
        undo=_calm,
    ),
    Fault(
        name="API server's authority replaced at once, a variant pinned: it serves",
        make=_rotate_authority,
        converged=_serves_the_pinned,
    ),
    _with_another_triton("kubelet restarted and Triton killed: it serves", _restart_kubelet),
    Fault(name="node drained and its pod deleted: it serves", make=_drain, converged=_serves_again),
    _with_another_triton("node rebooted: it serves", lambda site: site.machine.reboot(NODE)),
)
