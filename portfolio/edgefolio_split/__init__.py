"""Plan of a split model and its reference executor: what making a split and verifying it both need. No torch."""
