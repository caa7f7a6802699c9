"""One endpoint: its objectives, overrides, observation and memory reservations."""
