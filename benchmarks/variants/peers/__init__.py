"""Other methods, called as their documentation shows."""
