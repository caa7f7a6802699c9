"""Access to the Kubernetes API server: credentials, backoff, a synchronous client."""
