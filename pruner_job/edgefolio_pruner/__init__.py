"""Model and data to variants to repository. Needs the extra ``pruner``."""
