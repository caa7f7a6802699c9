"""Signals of the process, and exclusive locks on directories and endpoints."""
