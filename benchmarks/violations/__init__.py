"""Requests slower than the objective and mean accuracy: Edgefolio against other rules, on the same stories."""
