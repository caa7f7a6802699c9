"""Conditions of a portfolio about its agents: reports, clocks, orders. They never change Ready. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgefolio.specification.conditions import ConditionValue
from edgefolio_operator import reasons
from edgefolio_operator.endpoints.assignment import Assignment
from edgefolio_operator.endpoints.endpoint import Endpoint
from edgefolio_operator.messages import listed

#: The conditions of this module.
AGENT_CONDITIONS = ("ReportsAccepted", "ClocksAgree", "OrdersAccepted")
_PARTS_NAMED = 3


def agent_conditions(
    endpoints: Sequence[Endpoint], assignments: Sequence[Assignment], *, refused_orders: Mapping[str, str], epoch: int
) -> dict[str, ConditionValue]:
    """The conditions by name. ``refused_orders``: why the API server refused the last order, by endpoint."""
    return {
        "ReportsAccepted": _reports_accepted(endpoints, assignments),
        "ClocksAgree": _clocks_agree(endpoints),
        "OrdersAccepted": _orders_accepted(endpoints, refused_orders, epoch=epoch),
    }


def _reports_accepted(endpoints: Sequence[Endpoint], assignments: Sequence[Assignment]) -> ConditionValue:
    invalid = {endpoint.surroundings.pod_name: _parts(endpoint.unreadable) for endpoint in endpoints}
    invalid |= {each.spec.pod_name: "status" for each in assignments if each.report_is_unusable}
    named = [f"{name} ({parts})" for name, parts in sorted(invalid.items()) if parts]
    if not named:
        return "True", reasons.REPORTS_ACCEPTED, ""
    return (
        "False",
        reasons.INVALID_REPORT,
        f"The reports of {listed(named)} hold parts that cannot be read and count as absent. An agent of another "
        "version wrote them, or the node is not to be trusted: upgrade the agent, or look at the node.",
    )


def _parts(locations: Sequence[str]) -> str:
    return ", ".join(f"status.{location}".rstrip(".") for location in locations[:_PARTS_NAMED])


def _clocks_agree(endpoints: Sequence[Endpoint]) -> ConditionValue:
    skewed = [
        f"{endpoint.surroundings.node_name} is {_rounded(abs(offset))} {'ahead' if offset > 0 else 'behind'}"
        for endpoint in endpoints
        if (offset := endpoint.hearing.clock_offset)
    ]
    if not skewed:
        return "True", reasons.CLOCKS_AGREE, ""
    return (
        "False",
        reasons.CLOCK_SKEW,
        f"The clocks of nodes and operator differ: {listed(skewed)}. No decision depends on that, but the times "
        "shown to people are wrong: set up NTP there, or on the operator's node if all nodes are named.",
    )


def _rounded(seconds: float) -> str:
    """A difference of clocks in a unit that does not change from report to report."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"about {round(seconds / length)} {unit}"
    return "about a minute"


def _orders_accepted(endpoints: Sequence[Endpoint], refused: Mapping[str, str], *, epoch: int) -> ConditionValue:
    reasons_given = {
        endpoint.surroundings.pod_name: f"its agent obeys epoch {endpoint.status.observed_epoch}, this is {epoch}"
        for endpoint in endpoints
        if endpoint.status.observed_epoch > epoch
    }
    reasons_given |= refused
    named = [f"{name} ({why})" for name, why in sorted(reasons_given.items())]
    if not named:
        return "True", reasons.ORDERS_ACCEPTED, ""
    return (
        "False",
        reasons.ORDER_REFUSED,
        f"Orders were refused, so these endpoints stay as they are: {listed(named, separator='; ')}. "
        "Orders whose epoch is too low are repeated with a higher one.",
    )
