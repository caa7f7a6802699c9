"""The contract between operator, agent and Jobs: names in pods, reports, keys, parts of a making."""
