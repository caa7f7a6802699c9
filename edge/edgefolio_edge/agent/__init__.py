"""The agent: its control loop, its server's supervisor, its log and state files, and its assembly."""
