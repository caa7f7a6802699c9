"""The agent in a cluster: told by its own ModelEndpoint, reporting to it, deciding alone while it is cut off."""
