"""Scores of variants: metrics of every task, and their measurement on ONNX files."""

from edgefolio_pruner.scoring.judge import Judge, Measured
from edgefolio_pruner.scoring.scoring import Scoring, scoring_of

__all__ = ["Judge", "Measured", "Scoring", "scoring_of"]
