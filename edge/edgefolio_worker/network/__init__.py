"""Connections between the workers of one set: who may connect, and one thread that moves all bytes."""
