"""The agent's side of workers of splits: their identity, the set that they are told of, what they say of themselves."""
