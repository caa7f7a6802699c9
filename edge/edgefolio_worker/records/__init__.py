"""The files between a worker and the agent beside it: what it is, the set that it belongs to, how it is."""
