"""The one-shot route against magnitude selection without a refit, over several seeds."""
