"""Recording of decisions: encoding as JSON, traces, and the replay of a trace."""
