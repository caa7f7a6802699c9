"""Decisions on paper: their encoding as JSON, traces of them, and the replay of a trace."""
