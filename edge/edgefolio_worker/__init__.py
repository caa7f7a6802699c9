"""A worker of a split model inside Triton: it computes its shard together with its peers, or answers alone.

It stands alone: the standard library, numpy and ONNX Runtime, nothing of ours. Triton's stub imports it from the
backend's folder.
"""
