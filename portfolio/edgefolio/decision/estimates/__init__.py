"""Estimators of the decision: arrivals, compute factor, latency, memory."""
