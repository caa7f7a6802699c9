"""What the variants of trained networks lose and gain, against dense, Torch-Pruning and ONNX Runtime's quantizer."""
