"""What a net costs by the channels that each group keeps: multiply-accumulates, or measured time."""
