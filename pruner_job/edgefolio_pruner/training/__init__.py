"""Dense and sparse training that resumes to the bit: one state per sparsity level."""

from edgefolio_pruner.training.evaluation import check_model_fits_data, evaluate
from edgefolio_pruner.training.levels import train_levels
from edgefolio_pruner.training.result import MaskSummary, TrainedLevel, state_digest

__all__ = ["MaskSummary", "TrainedLevel", "check_model_fits_data", "evaluate", "state_digest", "train_levels"]
