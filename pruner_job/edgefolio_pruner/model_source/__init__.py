"""Where a user's network comes from: its code, the Hub, and the forms in which its weights are saved."""
