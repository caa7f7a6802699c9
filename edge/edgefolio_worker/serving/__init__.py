"""A worker at work: jobs, requests, the choice between the peers and the fallback."""
