"""Readers of untrusted documents and model files: bounded before they are used."""
