"""ONNX files as the source of a network: a module of torch from the graph, proven against ONNX Runtime."""
