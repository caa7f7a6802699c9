"""The contract and the core of Edgefolio: specification, manifest, repository, decision.

This room imports neither torch, kopf, tritonclient nor onnxruntime, so that every other room can stand on it.
"""

__version__ = "0.1.0"
