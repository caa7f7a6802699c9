"""Cluster state: informers, the snapshot of one portfolio, Jobs, metrics."""
