"""What each worker loads: its part of the network as ONNX, cut into segments, with the wire inside."""
