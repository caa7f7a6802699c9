"""What a thief of the operator's token would try to make of the operator's own objects: one change each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgefolio_operator import labels

Object = dict[str, Any]
Change = Callable[[Object], None]


def pod_of(document: Object) -> Object:
    found: Object = document["spec"]["template"]["spec"]
    return found


def with_volume(**source: Any) -> Change:
    return lambda document: pod_of(document)["volumes"].append({"name": "stolen", **source})


def in_pod(**fields: Any) -> Change:
    return lambda document: pod_of(document).update(fields)


def in_security(**fields: Any) -> Change:
    return lambda document: pod_of(document)["securityContext"].update(fields)


def in_container(**fields: Any) -> Change:
    return lambda document: pod_of(document)["containers"][0].update(fields)


def in_container_security(**fields: Any) -> Change:
    return lambda document: pod_of(document)["containers"][0]["securityContext"].update(fields)


def in_pod_labels(**fields: str) -> Change:
    return lambda document: document["spec"]["template"]["metadata"]["labels"].update(fields)


def in_pod_annotations(**fields: str) -> Change:
    return lambda document: document["spec"]["template"]["metadata"].update(annotations=fields)


def in_spec(**fields: Any) -> Change:
    return lambda document: document["spec"].update(fields)


def named(name: str) -> Change:
    return lambda document: document["metadata"].update(name=name)


def without(key: str) -> Change:
    return lambda document: document["metadata"].pop(key)


def at_top(**fields: Any) -> Change:
    return lambda document: document.update(fields)


def token_for(audience: str) -> Object:
    return {"projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": audience}}]}}


LOOSE: dict[str, Change] = {
    "the node's files": with_volume(hostPath={"path": "/"}),
    "a share on the network": with_volume(nfs={"server": "192.0.2.1", "path": "/"}),
    "the node's network": in_pod(hostNetwork=True),
    "the node's processes": in_pod(hostPID=True),
    "the node's memory": in_pod(hostIPC=True),
    "a node of one's choice, whatever its taints": in_pod(nodeName="control-plane"),
    "root": in_security(runAsNonRoot=False, runAsUser=0),
    "root in a container": in_container_security(runAsNonRoot=False, runAsUser=0),
    "every system call": in_security(seccompProfile={"type": "Unconfined"}),
    "every system call in a container": in_container_security(seccompProfile={"type": "Unconfined"}),
    "the kernel's settings": in_security(sysctls=[{"name": "kernel.msgmax", "value": "65536"}]),
    "a privileged container": in_container_security(privileged=True, allowPrivilegeEscalation=True),
    "privileges by a program": in_container_security(allowPrivilegeEscalation=True),
    "a capability": in_container_security(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}),
    "no capability dropped": in_container_security(capabilities={}),
    "no security at all": in_container(securityContext=None),
    "a port of the node": in_container(ports=[{"containerPort": 8000, "hostPort": 443}]),
    "a second container": lambda document: pod_of(document)["containers"].append({"name": "own", "image": "own:1"}),
    "an init container": lambda document: (
        pod_of(document).setdefault("initContainers", []).append({"name": "own", "image": "own:1"})
    ),
    "the operator's account": in_pod(serviceAccountName="edgefolio-operator", automountServiceAccountToken=True),
    "another account": in_pod(serviceAccountName="web"),
    "the token of its account": in_pod(automountServiceAccountToken=True),
    "the clients of another Service": in_pod_labels(app="web"),
    "the clients of a Service that selects by name": in_pod_labels(**{"app.kubernetes.io/name": "web"}),
    "a network by annotation": in_pod_annotations(**{"k8s.v1.cni.cncf.io/networks": "host"}),
    "a pod without its label": lambda document: document["spec"]["template"]["metadata"]["labels"].pop(
        labels.MANAGED_BY_LABEL
    ),
    # Not none: a Job without labels gets those of its pods.
    "an object without its label": lambda document: document["metadata"].update(labels={"team": "thieves"}),
    "a label of somebody else": lambda document: document["metadata"]["labels"].update(
        {labels.MANAGED_BY_LABEL: "Helm"}
    ),
    "no portfolio": without("ownerReferences"),
    "another owner": lambda document: document["metadata"]["ownerReferences"][0].update(
        apiVersion="v1", kind="Namespace"
    ),
}


OTHERS: dict[str, tuple[str, Change]] = {
    "a token for another system": ("daemon set", with_volume(**token_for("vault"))),
    "a token in a Job": ("making", with_volume(**token_for(""))),
    "a Job for ever": ("reclaim", in_spec(activeDeadlineSeconds=86_400)),
    "a Job without a deadline": ("reclaim", lambda document: document["spec"].pop("activeDeadlineSeconds")),
    "a Job of another name without owner": ("reclaim", named("miner")),
    "a Service to the world": ("service", in_spec(type="LoadBalancer")),
    "a Service on all nodes": ("service", in_spec(type="NodePort")),
    "a Service that takes an address": ("service", in_spec(externalIPs=["192.0.2.1"])),
    "a Service that leads away": ("service", in_spec(type="ExternalName", externalName="evil.example.com")),
    "a Service of another name": ("service", named("payments")),
    "a DaemonSet of another name": ("daemon set", named("payments")),
    "a Service to other pods": ("service", in_spec(selector={"app": "web"})),
    "a Service without selector": ("service", in_spec(selector=None)),
    "another account": ("account", named("admin")),
    "an account with its token in every pod": ("account", at_top(automountServiceAccountToken=True)),
    "a binding of another name": ("binding", named("admin")),
    "agents' rights for everybody": (
        "binding",
        at_top(subjects=[{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}]),
    ),
    "agents' rights for the agents of another namespace": (
        "binding",
        at_top(subjects=[{"kind": "ServiceAccount", "name": "edgefolio-agent", "namespace": "default"}]),
    ),
    "an endpoint of no pod": ("endpoint", without("ownerReferences")),
    "an endpoint of another pod": ("endpoint", named("digits-other")),
    "a ConfigMap without owner": ("specification", without("ownerReferences")),
}
