"""The objects that the operator owns, as documents: Jobs, the DaemonSet and its pod."""
