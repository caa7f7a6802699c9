"""One-shot pruning: prune and re-fit a trained model on unlabelled samples, without training."""

from edgefolio_pruner.oneshot.prune import (
    LeastShare,
    layers_to_time,
    least_share,
    one_shot_bytes,
    prune_to_latencies,
    prune_to_targets,
)
from edgefolio_pruner.oneshot.result import OneShotResult, OneShotResults, ReaderResidual

__all__ = [
    "LeastShare",
    "OneShotResult",
    "OneShotResults",
    "ReaderResidual",
    "layers_to_time",
    "least_share",
    "one_shot_bytes",
    "prune_to_latencies",
    "prune_to_targets",
]
