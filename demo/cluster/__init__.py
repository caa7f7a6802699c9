"""The demonstration on a real Kubernetes: install, apply, make, serve, contention, recovery."""
