"""Division by channels: their owners, what is sent of them, and the weights that are adjusted to it (RePurpose)."""
