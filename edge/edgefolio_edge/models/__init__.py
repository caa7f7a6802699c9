"""Models on local disk: synchronizer, store, probes, and the audit of a repository."""
