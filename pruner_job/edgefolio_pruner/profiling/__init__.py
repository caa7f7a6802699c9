"""What a variant costs on this machine: latency, load time, memory, and its accuracy through the ONNX file."""
