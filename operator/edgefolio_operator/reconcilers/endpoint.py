"""Reconciler of the endpoints of one portfolio: their set, orders and reservations. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from edgefolio.contract.order_reason import OrderReason, without_reason
from edgefolio.decision.types import State
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import PortfolioStatus, RevisionStatus
from edgefolio.specification.resource import API_VERSION, ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.cluster_state.report_clocks import Hearing
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot
from edgefolio_operator.endpoints.adoption_preflight import incompatible
from edgefolio_operator.endpoints.assignment import Assignment, assign
from edgefolio_operator.endpoints.endpoint import Endpoint, Surroundings
from edgefolio_operator.endpoints.memory_reservations import (
    EndpointKey,
    Promise,
    Reservations,
    largest_load,
    promises_of,
    target_of,
)
from edgefolio_operator.endpoints.observation import ClusterView
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.kube.objects import Document, Object, has_ended, is_controlled_by, owner_reference, part_of
from edgefolio_operator.kube.stored import read_parts, read_stored

logger = logging.getLogger(__name__)


def endpoints_of(snapshot: PortfolioSnapshot, *, adopts: bool) -> list[Endpoint]:
    """The endpoint of every scheduled pod, by name; unreadable fields count as absent.

    Not of another portfolio's pods, nor of adopted ones that lack what the agent needs. An existing endpoint
    stays: a newer operator may require more than the pod had at its adoption.
    """
    stored = {entry["metadata"]["name"]: entry for entry in snapshot.endpoints}
    unfit = incompatible(snapshot.pods) if adopts else {}
    found = []
    for pod in sorted(snapshot.pods, key=lambda pod: str(pod["metadata"]["name"])):
        name, node_name = str(pod["metadata"]["name"]), pod["spec"].get("nodeName")
        if not node_name or pod["metadata"].get("deletionTimestamp") or has_ended(pod):
            continue
        if name in snapshot.lost_pods or name in snapshot.occupied_pods or (name in unfit and name not in stored):
            continue
        node = None if snapshot.nodes is None else snapshot.nodes.get(node_name, {"metadata": {"name": node_name}})
        entry = stored.get(name, {})
        if entry and not is_controlled_by(entry, pod):
            entry = {}  # that of an earlier pod of this name
        status, unreadable = read_parts(EndpointStatus, entry.get("status"))
        spec = _stored_specification(entry.get("spec"), pod)
        found.append(
            Endpoint(
                surroundings=Surroundings(
                    pod=pod, node=node, namespace=snapshot.namespace, api_clock_offset=snapshot.api_clock_offset
                ),
                spec=None if spec is None else without_reason(spec),
                told=OrderReason.of(entry.get("metadata"), spec),
                status=status or EndpointStatus(),
                generation=part_of(entry, "metadata", "generation"),
                unreadable=unreadable,
                hearing=snapshot.hearings.get(name, Hearing()),
            )
        )
    return found


def stale_endpoints(snapshot: PortfolioSnapshot) -> tuple[str, ...]:
    """Endpoints of pods that are no longer this portfolio's: of another selector, of an older portfolio, or gone."""
    selected = {str(pod["metadata"]["name"]): pod for pod in snapshot.pods}
    return tuple(
        sorted(
            name
            for entry in snapshot.endpoints
            if (name := str(entry["metadata"]["name"])) in snapshot.lost_pods
            or name not in selected
            or not is_controlled_by(entry, selected[name])
        )
    )


def assign_all(
    portfolio: ModelPortfolio,
    members: Sequence[Endpoint],
    *,
    revisions: Sequence[RevisionStatus],
    assigned_revisions: Mapping[str, int],
    states: Mapping[str, State],
    resources: ResourceView,
    epoch: int,
    now: float,
) -> tuple[list[Assignment], tuple[Promise, ...]]:
    """The order and reservations of each endpoint; ``assigned_revisions`` are by pod.

    Sequential: each sees the promises of those before it.
    """
    by_number = {entry.number: entry for entry in revisions}
    namespace = portfolio.metadata.namespace or ""
    reservations = resources.reservations
    assignments: list[Assignment] = []
    promises: list[Promise] = []
    for endpoint in members:
        surroundings = endpoint.surroundings
        key = (namespace, surroundings.pod_name)

        def assigned(
            endpoint: Endpoint, memory: State | None, *, key: EndpointKey = key, held: Reservations = reservations
        ) -> tuple[Assignment, tuple[Promise, ...]]:
            surroundings = endpoint.surroundings
            assignment = assign(
                portfolio,
                endpoint,
                view=ClusterView(
                    node=surroundings.node,
                    node_sample=(resources.usage.nodes or {}).get(surroundings.node_name),
                    pod_sample=resources.usage.pods.get(key),
                    stale_after=resources.stale_after,
                    reserved=partial(_reserved, held, surroundings.node_name, key, now),
                ),
                revision=by_number.get(assigned_revisions.get(surroundings.pod_name, 0)),
                memory=memory,
                epoch=epoch,
                now=now,
            )
            return assignment, promises_of(
                key,
                spec=assignment.spec,
                status=endpoint.status,
                revisions=by_number,
                before=resources.reservations.promises.get(key, ()),
                now=now,
                clock_offset=endpoint.hearing.clock_offset,
                is_stored=endpoint.spec is not None and target_of(endpoint.spec) == target_of(assignment.spec),
            )

        try:
            assignment, own = assigned(endpoint, states.get(surroundings.pod_name))
        except Exception as error:
            # The models bound what a report may say. Should that not be enough, its endpoint alone holds.
            _log_once(key, f"{type(error).__name__}: {error}")
            assignment, own = assigned(replace(endpoint, status=EndpointStatus()), None)
            assignment = replace(assignment, report_is_unusable=True)
        reservations = reservations.after(key, own)
        assignments.append(assignment)
        promises += own
    return assignments, tuple(promises)


def promises_before(snapshot: PortfolioSnapshot, *, now: float) -> tuple[Promise, ...]:
    """The promises of a portfolio before its first reconciliation, as after a restart."""
    status = read_stored(PortfolioStatus, snapshot.portfolio.get("status")) or PortfolioStatus()
    namespace = str(snapshot.portfolio["metadata"].get("namespace", ""))
    members = endpoints_of(snapshot, adopts=False)
    return standing_promises(namespace, members, revisions=status.revisions, now=now)


def standing_promises(
    namespace: str,
    members: Sequence[Endpoint],
    *,
    revisions: Sequence[RevisionStatus],
    now: float,
) -> tuple[Promise, ...]:
    """The promises of ``members`` by their stored specs and statuses."""
    by_number, largest = {entry.number: entry for entry in revisions}, largest_load(revisions)
    return tuple(
        promise
        for endpoint in members
        if endpoint.spec is not None
        for promise in promises_of(
            (namespace, endpoint.surroundings.pod_name),
            spec=endpoint.spec,
            status=endpoint.status,
            revisions=by_number,
            before=(),
            now=now,
            clock_offset=endpoint.hearing.clock_offset,
            may_be_loading=largest if endpoint.may_load_other else 0,
        )
    )


def changed_documents(
    portfolio: Object, members: Iterable[Endpoint], assignments: Iterable[Assignment]
) -> list[Document]:
    """The ModelEndpoints whose spec or reason differs from the stored one; each is deleted with its pod."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "ModelEndpoint",
            "metadata": {
                "name": endpoint.surroundings.pod_name,
                "namespace": portfolio["metadata"]["namespace"],
                "labels": labels.object_labels(portfolio["metadata"]["name"], component=labels.ENDPOINT_COMPONENT),
                "annotations": assignment.told.annotations(),
                "ownerReferences": [owner_reference({"apiVersion": "v1", "kind": "Pod", **endpoint.surroundings.pod})],
            },
            # Without what is kept for stored objects alone.
            "spec": assignment.spec.model_dump(
                mode="json", by_alias=True, exclude_none=True, exclude={"reason", "message"}
            ),
        }
        for endpoint, assignment in zip(members, assignments, strict=True)
        if assignment.spec != endpoint.spec or assignment.told != endpoint.told
    ]


@lru_cache(maxsize=1024)
def _log_once(key: EndpointKey, problem: str) -> None:
    logger.error("endpoint %s/%s: its report cannot be decided on and counts as absent: %s", *key, problem)


def _stored_specification(spec: Any, pod: Object) -> EndpointSpecification | None:
    """The endpoint's stored spec; unreadable names are taken from its ``pod``."""
    found = read_stored(EndpointSpecification, spec)
    if found is None and isinstance(spec, Mapping):
        known = {"podName": pod["metadata"]["name"], "nodeName": pod["spec"]["nodeName"]}
        found = read_stored(EndpointSpecification, {**spec, **known})
    return found


def _reserved(reservations: Reservations, node: str, key: EndpointKey, now: float, seen_at: float) -> int:
    return reservations.reserved_bytes(node, but_for=key, seen_at=seen_at, now=now)
