"""One-shot pruning: prune and re-fit a trained model on unlabelled samples, without training."""

from edgefolio_pruner.oneshot.prune import prune_to_targets
from edgefolio_pruner.oneshot.result import OneShotResult, ReaderResidual

__all__ = ["OneShotResult", "ReaderResidual", "prune_to_targets"]
