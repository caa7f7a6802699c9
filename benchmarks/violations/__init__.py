"""Requests slower than the objective, mean accuracy and switches: Edgefolio against other rules, on the same stories."""
