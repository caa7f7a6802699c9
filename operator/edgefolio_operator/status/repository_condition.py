"""Condition of a portfolio about its repository as its agents find it: a wrong Secret shows nowhere else. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edgefolio.specification.conditions import ConditionValue
from edgefolio_operator import reasons
from edgefolio_operator.endpoints.endpoint import Endpoint

CONDITION = "RepositoryReadable"


def repository_readable(endpoints: Sequence[Endpoint]) -> ConditionValue:
    """Whether the agents can read the repository; the message holds no number, which would change with every report."""
    synced = [
        condition
        for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.surroundings.pod_name)
        for condition in endpoint.status.conditions
        if condition.type == "Synced"
    ]
    # An agent's word.
    failed = [condition for condition in synced if condition.reason == "Unreachable"]
    if not failed:
        return ("True" if synced else "Unknown"), reasons.REPOSITORY_READ, ""
    whom = "All agents" if len(failed) == len(endpoints) else "Some agents"
    return (
        "False",
        reasons.REPOSITORY_UNREACHABLE,
        f"{whom} cannot read the repository: {failed[0].message} What is on disk serves on. Check the Secret that they "
        "are given (it is read anew when it changes), the bucket, and the nodes' network.",
    )
