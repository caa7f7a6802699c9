"""Pruner: makes variants of a model and publishes them. Extra ``pruner``."""
