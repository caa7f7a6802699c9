"""What the API server holds of one portfolio, and what a cycle wants written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from edgefolio.contract.job_report import ProgressLine
from edgefolio.decision.types import Decision, State
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import PortfolioStatus
from edgefolio.specification.resource import API_VERSION, ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.endpoints.adoption_preflight import incompatible
from edgefolio_operator.endpoints.endpoint_counts import Endpoint
from edgefolio_operator.endpoints.facts import Sight, standing_promises
from edgefolio_operator.endpoints.memory_reservations import Promise
from edgefolio_operator.kube.event_recorder import Event
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.ownership import PortfolioKey
from edgefolio_operator.reconcilers.endpoint import Surroundings

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class World:
    """What the API server holds of one portfolio.

    ``nodes`` is ``None`` where they may not be read. ``lost_pods`` are pods that an older portfolio has, with that one;
    ``repository_owner`` is the older portfolio that makes into this one's repository.
    """

    portfolio: Object
    jobs: Sequence[Object] = ()
    job_pods: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    nodes: Mapping[str, Object] | None = None
    namespace: Object | None = None
    endpoints: Sequence[Object] = ()
    daemon_set: Object | None = None
    service: Object | None = None
    server_version: ServerVersion = field(default_factory=ServerVersion)
    progress: Mapping[str, ProgressLine] = field(default_factory=dict)
    sight: Sight = field(default_factory=Sight)
    lost_pods: Mapping[str, PortfolioKey] = field(default_factory=dict)
    repository_owner: PortfolioKey | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be written, and what to remember until the next cycle."""

    status: PortfolioStatus
    apply: tuple[dict[str, Any], ...] = ()
    delete_jobs: tuple[str, ...] = ()
    delete_daemon_set: str | None = None
    delete_endpoints: tuple[str, ...] = ()
    suspend_job: tuple[str, bool] | None = None
    finalizer: bool | None = None
    events: tuple[Event, ...] = ()
    states: Mapping[str, State] | None = None
    decisions: Mapping[str, Decision] | None = None
    promises: tuple[Promise, ...] = ()


def endpoints_of(world: World, portfolio: ModelPortfolio | None = None) -> list[Endpoint]:
    """The endpoint of every pod that has a node, by name; what cannot be read counts as not written.

    Not of pods that an older portfolio has, nor of those that lack what the agent needs. One that was an endpoint stays
    one: a newer operator may ask for more than the pod had when it was taken.
    """
    stored = {entry["metadata"]["name"]: entry for entry in world.endpoints}
    adopts = portfolio is not None and portfolio.spec.serving.mode == "Adopt"
    unfit = incompatible(world.pods) if adopts else {}
    found = []
    for pod in sorted(world.pods, key=lambda pod: str(pod["metadata"]["name"])):
        ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if not pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp") or ended:
            continue
        name = str(pod["metadata"]["name"])
        if name in world.lost_pods or (name in unfit and name not in stored):
            continue
        node_name = pod["spec"]["nodeName"]
        node = None if world.nodes is None else world.nodes.get(node_name, {"metadata": {"name": node_name}})
        entry = stored.get(name, {})
        found.append(
            Endpoint(
                surroundings=Surroundings(pod=pod, node=node, namespace=world.namespace),
                spec=parsed(EndpointSpecification, entry.get("spec")),
                status=parsed(EndpointStatus, entry.get("status")) or EndpointStatus(),
            )
        )
    return found


def left_behind(world: World) -> tuple[str, ...]:
    """Endpoints of pods that are no longer this portfolio's: of another selector, or of an older portfolio."""
    selected = {str(pod["metadata"]["name"]) for pod in world.pods} - world.lost_pods.keys()
    return tuple(sorted({str(entry["metadata"]["name"]) for entry in world.endpoints} - selected))


def promises_before(world: World, *, now: float) -> tuple[Promise, ...]:
    """What the endpoints of a portfolio hold before its first cycle."""
    status = parsed(PortfolioStatus, world.portfolio.get("status")) or PortfolioStatus()
    namespace = str(world.portfolio["metadata"].get("namespace", ""))
    return standing_promises(namespace, endpoints_of(world), revisions=status.revisions, now=now)


def endpoint_document(endpoint: Endpoint, spec: EndpointSpecification, portfolio: Object) -> dict[str, Any]:
    """The ModelEndpoint of ``endpoint``; it goes when its pod goes."""
    pod = endpoint.surroundings.pod
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelEndpoint",
        "metadata": {
            "name": pod["metadata"]["name"],
            "namespace": portfolio["metadata"]["namespace"],
            "labels": labels.object_labels(portfolio["metadata"]["name"], component=labels.ENDPOINT_COMPONENT),
            "ownerReferences": [owner_reference({"apiVersion": "v1", "kind": "Pod", **pod})],
        },
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def owner_reference(owner: Object) -> dict[str, Any]:
    """``owner`` as the controller of something; it goes when the owner goes."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def namespace_ends(world: World) -> bool:
    """Whether the portfolio's namespace is being deleted, as far as may be read."""
    return bool((world.namespace or {}).get("metadata", {}).get("deletionTimestamp"))


def parsed(model: Any, document: Any) -> Any:
    """``document`` as ``model``; ``None`` where it is absent or from a world that this version does not know."""
    if not document:
        return None
    try:
        return model.model_validate(document)
    except ValidationError:
        return None
