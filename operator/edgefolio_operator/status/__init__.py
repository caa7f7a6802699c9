"""Conditions and Events for users."""
