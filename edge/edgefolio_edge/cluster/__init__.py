"""The agent in a pod: obeys its own ModelEndpoint, reports its status, decides autonomously while cut off."""
