"""Helpers of the tests of exact spatial pruning."""
