"""Attention in one-shot pruning: heads in their own coordinates, and what pairs of queries and keys are worth."""
