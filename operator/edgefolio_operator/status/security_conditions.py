"""Conditions of a portfolio about its security, which never change Ready: old servers, credentials on nodes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edgefolio.components import release_of_image, triton_warning
from edgefolio.contract.pod import TRITON_CONTAINER
from edgefolio.specification.conditions import ConditionValue
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import reasons
from edgefolio_operator.endpoints.endpoint import Endpoint
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.messages import listed

#: Of a portfolio, and of each of its endpoints.
KNOWN_VULNERABILITIES = "KnownVulnerabilities"
#: The conditions of this module.
SECURITY_CONDITIONS = (KNOWN_VULNERABILITIES, "PublisherCredentialsOnNodes")


def security_conditions(
    portfolio: ModelPortfolio, *, daemon_set: Object | None, members: Sequence[Endpoint]
) -> dict[str, ConditionValue]:
    """The conditions by name; ``daemon_set`` is the stored one."""
    return {
        KNOWN_VULNERABILITIES: known_vulnerabilities(daemon_set, members),
        "PublisherCredentialsOnNodes": publisher_credentials_on_nodes(portfolio),
    }


def publisher_credentials_on_nodes(portfolio: ModelPortfolio) -> ConditionValue:
    """Whether the agents on the nodes hold the credentials that publish."""
    repository = portfolio.spec.repository
    # Who follows others publishes nothing, and the agents of adopted pods have a Secret of their owner's.
    publishes = portfolio.spec.source is not None and portfolio.spec.serving.mode == "Managed"
    if not publishes or repository.secret_ref is None or repository.reading_secret != repository.secret_ref:
        return "False", reasons.NO_SHARED_SECRET, ""
    return (
        "True",
        reasons.SHARED_SECRET,
        f"Each node holds the Secret {repository.secret_ref.name}, with which the Job publishes: whoever takes over a "
        "node can write to the repository. Name a Secret that only reads in repository.readSecretRef.",
    )


def known_vulnerabilities(daemon_set: Object | None, members: Sequence[Endpoint]) -> ConditionValue:
    """Whether a Triton runs that lacks the fixes of known vulnerabilities.

    Agents say it of the server that they control; those of older versions do not, so that the image counts, too.
    """
    said = {
        endpoint.surroundings.pod_name: condition.message
        for endpoint in members
        for condition in endpoint.status.conditions
        if (condition.type, condition.status) == (KNOWN_VULNERABILITIES, "True")
    }
    if said:
        return "True", reasons.OUTDATED_TRITON, f"{listed(sorted(said))}: {next(iter(said.values()))}"
    image = _triton_image(daemon_set)
    warning = triton_warning(release_of_image(image))
    if warning is not None:
        return "True", reasons.OUTDATED_TRITON, f"Image {image}: {warning}"
    return "False", reasons.NONE_KNOWN, ""


def _triton_image(daemon_set: Object | None) -> str:
    containers = (((daemon_set or {}).get("spec") or {}).get("template") or {}).get("spec", {}).get("containers") or ()
    return next((str(entry.get("image", "")) for entry in containers if entry.get("name") == TRITON_CONTAINER), "")
