"""The steps between a specification and a published portfolio; :mod:`edgefolio_pruner.pipeline` joins them."""
