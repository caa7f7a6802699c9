"""Observation of an endpoint: traffic from Triton's counters, the agent's own probe, memory, and liveness."""
