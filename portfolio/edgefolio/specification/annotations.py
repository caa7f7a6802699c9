"""Names of the annotations that users set."""

from __future__ import annotations

#: On a ModelPortfolio: any new value asks for another pruning run of the same specification.
MAKE_REQUESTED = "edgefolio.dev/make-requested-at"
#: On a ModelPortfolio: any new value tries a revision again that was rolled back or paused, and endpoints left behind.
ROLLOUT_REQUESTED = "edgefolio.dev/rollout-requested-at"
#: On a ModelPortfolio with rollout.approval Manual: the number of the revision that may be rolled out.
APPROVE_REVISION = "edgefolio.dev/approve-revision"
#: On a pod or a node: the variant to serve, whatever is measured. The pod's counts before the node's.
PIN_VARIANT = "edgefolio.dev/pin-variant"
#: On a pod or a node: leave the endpoint as it is. The pod's counts before the node's.
PAUSED = "edgefolio.dev/paused"
#: On a pod, a node or a namespace: objectives, as slo.edgefolio.dev/latency-p95-ms.
OBJECTIVE_PREFIX = "slo.edgefolio.dev/"


#: Values of a boolean annotation: false, and true, in lower case.
FALSE_WORDS = frozenset({"", "false", "no", "0"})
TRUE_WORDS = frozenset({"true", "yes", "1"})


def is_paused(value: str | None) -> bool:
    """Whether the value of :data:`PAUSED` (``None``: there is no such annotation) holds the endpoint."""
    return value is not None and value.strip().lower() not in FALSE_WORDS
