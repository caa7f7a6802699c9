"""The contract between operator, agent and Jobs: pod names, reports, keys, pieces of a pruning run."""
