"""Triton on one machine: started from the PyPI wheel or attached to, and controlled over gRPC."""
