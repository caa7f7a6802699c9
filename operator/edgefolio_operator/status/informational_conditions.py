"""Conditions of a portfolio that never change Ready: node metrics, conflicts, adoption. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgefolio.specification.conditions import ConditionValue
from edgefolio_operator import reasons
from edgefolio_operator.cluster_state.resource_usage import Usage
from edgefolio_operator.endpoints.adoption_preflight import incompatible, remedy
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.messages import listed
from edgefolio_operator.ownership import PortfolioKey, display_name

#: The conditions of this module.
INFORMATIONAL_CONDITIONS = ("NodeMetricsAvailable", "Conflicted", "Compatible")

NAMESPACED = (
    "The operator looks after single namespaces: it reads neither nodes nor namespaces, so that their annotations, the "
    "nodes' labels, shortages and usage are not taken into account. The chart's value readNodes lets it read them."
)
OVERRIDES_IGNORED = (
    "spec.objectiveOverrides: an operator of single namespaces reads no labels of nodes; they are ignored "
    "(SourceUnavailable)."
)


def informational_conditions(
    *,
    mode: str,
    pods: Sequence[Object],
    nodes: Iterable[str],
    reads_nodes: bool,
    lost_pods: Mapping[str, PortfolioKey],
    resources: ResourceView,
    now: float,
) -> dict[str, ConditionValue]:
    """The conditions by name: ``pods`` are those that were selected, ``nodes`` those of the endpoints."""
    return {
        "NodeMetricsAvailable": node_metrics_available(
            nodes, resources.usage, reads_nodes=reads_nodes, now=now, stale_after=resources.stale_after
        ),
        "Conflicted": conflicted(lost_pods),
        "Compatible": compatible([pod for pod in pods if pod["metadata"]["name"] not in lost_pods], mode=mode),
    }


def node_metrics_available(
    nodes: Iterable[str], usage: Usage, *, reads_nodes: bool, now: float, stale_after: float
) -> ConditionValue:
    """Whether the usage of the endpoints' ``nodes`` is known; the message names no ages, which always change."""
    if not reads_nodes or usage.nodes is None:
        return "False", reasons.SOURCE_UNAVAILABLE, NAMESPACED
    if not usage.asked:
        return "Unknown", reasons.NOT_ASKED_YET, "metrics.k8s.io was not asked yet."
    wanted = sorted(set(nodes))
    samples = {name: usage.nodes.get(name) for name in wanted}
    missing = [name for name, sample in samples.items() if sample is None]
    stale = [
        name
        for name, sample in samples.items()
        if sample is not None and not sample.is_fresh(now=now, stale_after=stale_after)
    ]
    rest = "Decisions rest on what the agents report."
    if usage.problem and len(missing) + len(stale) == len(wanted):
        return "False", reasons.SOURCE_UNAVAILABLE, f"{usage.problem} {rest}"
    if not wanted:
        return "True", reasons.METRICS_FRESH, ""
    if missing or stale:
        lacking = listed(missing + stale)
        return "False", reasons.METRICS_STALE, f"There is no sample of the last {stale_after:g} s of {lacking}. {rest}"
    return "True", reasons.METRICS_FRESH, ""


def conflicted(lost: Mapping[str, PortfolioKey]) -> ConditionValue:
    """Whether older portfolios own pods that this one claims, too."""
    if not lost:
        return "False", reasons.NO_CONFLICT, ""
    winners = listed([display_name(key) for key in sorted(set(lost.values()))])
    return (
        "True",
        reasons.POD_CLAIMED,
        f"{winners}, which is older, claims {listed(sorted(lost))} as well and has it. "
        "Narrow serving.adopt.selector of one of them, or delete one.",
    )


def compatible(pods: Sequence[Object], *, mode: str) -> ConditionValue:
    """Whether the pods that are to be adopted carry what the agent needs."""
    if mode != "Adopt":
        return "True", reasons.MANAGED, ""
    faults = incompatible(pods)
    if faults:
        return "False", reasons.PARTS_MISSING, remedy(faults, total=len(pods))
    if not pods:
        return "Unknown", reasons.NO_PODS, "No pod carries the labels of serving.adopt.selector."
    return "True", reasons.ADOPTED, ""
