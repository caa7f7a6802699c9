"""What is known about an endpoint: traffic from Triton's counters, the agent's own probe, memory, and liveness."""
