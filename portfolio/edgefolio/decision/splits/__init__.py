"""Splits in the decision: a variant that several nodes compute together, and what answers when they cannot."""
