"""What is known of the cluster: informers, the snapshot of one portfolio, Jobs, metrics."""
