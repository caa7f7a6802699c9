"""Times of a whole cluster: install, first serving, contention to switched, each fault to converged."""
