"""What a split keeps of a model's accuracy for the bytes that it sends."""
