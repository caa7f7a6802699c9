"""What one process owes the system: signals, and exclusive locks on folders and endpoints."""
