"""Dense and sparse training that resumes to the bit: one state per sparsity level."""

from edgefolio_pruner.training.result import MaskSummary, TrainedLevel, state_digest

__all__ = ["MaskSummary", "TrainedLevel", "state_digest"]
