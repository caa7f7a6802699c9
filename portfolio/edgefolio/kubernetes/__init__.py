"""Access to the API server of Kubernetes: credentials, pauses between attempts, a synchronous client."""
