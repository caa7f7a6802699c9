"""The one-shot route: prune and re-fit a trained model on unlabelled samples, without training."""

from edgefolio_pruner.oneshot.prune import prune_ladder, prune_one_shot
from edgefolio_pruner.oneshot.result import OneShotResult, ReaderResidual

__all__ = ["OneShotResult", "ReaderResidual", "prune_ladder", "prune_one_shot"]
