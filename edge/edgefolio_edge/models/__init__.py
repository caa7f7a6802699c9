"""Models on local disk: synchronized, verified, stored; their probes."""
