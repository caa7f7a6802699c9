"""Profiler of a variant on this machine: latency, load time, memory, and accuracy of the ONNX file."""
