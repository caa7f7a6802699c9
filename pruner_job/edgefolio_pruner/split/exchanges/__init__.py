"""Channels divided over workers: which of them go together, and where workers exchange them."""
