"""Reference executor of a split model and the probes of its shards: what making and verifying both need. No torch."""
