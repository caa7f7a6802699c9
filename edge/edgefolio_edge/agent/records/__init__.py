"""What an agent writes down: its logs, metrics and state files."""
