"""What a worker computes with ONNX Runtime: the segments of its shard, and the variant it falls back to."""
