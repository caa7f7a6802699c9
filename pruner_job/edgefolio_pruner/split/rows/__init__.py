"""Division by rows: bands of a map and the rows around them, without loss."""
