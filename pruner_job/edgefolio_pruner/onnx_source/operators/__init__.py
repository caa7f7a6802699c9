"""Operators of ONNX as layers and calls of torch: one table, one function each."""
