"""Checks of model and data before anything is trained or pruned, and what ``edgefolio check`` tells of them."""
