"""What is measured, and on which portfolio."""

from __future__ import annotations

from typing import Any

from edgefolio.specification.portfolio_status import VariantStatus

SIZES = (2, 50, 500)
"""Endpoints of one run."""
ROUNDS = 3
"""Runs of each size, in turns: the machine is not equally fast all the time."""
IDLE_SECONDS = 60
#: Nothing is measured so soon after the last endpoint began to serve: first reports, and the dwell time of a switch.
SETTLE_SECONDS = 30
#: Each of these is asked in turn, and all endpoints meet all of them: nobody switches.
OBJECTIVES = (19, 18, 17)
#: Time between two of them.
PAUSE_SECONDS = 10
SLOW_PERCENT = 10
#: So much slower a contended node computes: too slow for the variant that it serves, not for all.
SLOWDOWN = 2.0
GIVE_UP_SECONDS = 300

NAMESPACE = "scale"
PORTFOLIO = "scale"
#: Mean compute time of each variant, in milliseconds.
COMPUTE = {"v1": 2.0, "v2": 4.0, "v3": 6.0, "v4": 8.0, "v5": 10.0}
#: 95 % latency of a profile against its mean.
P95_TO_MEAN = 1.2

SPEC: dict[str, Any] = {
    "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
    "data": {"trainingURI": "builtin:digits"},
    "methods": {"sparseTraining": {}},
    "repository": {"uri": "s3://bucket/portfolios"},
    "serving": {
        "modelName": "scale",
        "mode": "Managed",
        "managed": {
            "nodeSelector": {"type": "kwok"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
        },
    },
    "objectives": {"latencyP95Milliseconds": 20},
}
"""Everything that is not named has its default, the times of switching among it."""

VARIANTS = tuple(
    VariantStatus(
        name=name,
        rank=rank,
        accuracy_percent=str(80 + rank),
        mean_milliseconds=f"{compute:g}",
        p95_milliseconds=f"{compute * P95_TO_MEAN:g}",
        load_milliseconds="150",
        memory_peak_bytes=2**24,
        memory_steady_bytes=2**23,
    )
    for rank, (name, compute) in enumerate(COMPUTE.items(), start=1)
)
