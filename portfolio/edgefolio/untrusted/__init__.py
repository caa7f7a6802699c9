"""Readers of untrusted text and documents: bounded before they are used, harmless where they are shown."""
